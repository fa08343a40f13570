//! JSON values that are what they should be, or nothing: one odd value must not cost the rest of a document.

use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A whole number that is not negative, a text, a truth value; `None` for any other JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct If<T>(pub(super) Option<T>);

/// Which JSON values give a `T`.
pub(super) trait Wanted: Sized {
    /// From a number.
    fn number(_: u64) -> Option<Self> {
        None
    }
    /// From a text.
    fn text(_: &str) -> Option<Self> {
        None
    }
    /// From a truth value.
    fn truth(_: bool) -> Option<Self> {
        None
    }
}

impl Wanted for u64 {
    fn number(number: u64) -> Option<Self> {
        Some(number)
    }
}

impl Wanted for String {
    fn text(text: &str) -> Option<Self> {
        Some(text.to_owned())
    }
}

impl Wanted for bool {
    fn truth(truth: bool) -> Option<Self> {
        Some(truth)
    }
}

struct Any<T>(PhantomData<T>);

impl<'de, T: Wanted> Visitor<'de> for Any<T> {
    type Value = If<T>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("any value")
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<If<T>, E> {
        Ok(If(T::number(number)))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<If<T>, E> {
        Ok(If(T::text(text)))
    }

    fn visit_bool<E: Error>(self, truth: bool) -> Result<If<T>, E> {
        Ok(If(T::truth(truth)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<If<T>, E> {
        Ok(If(None))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<If<T>, E> {
        Ok(If(None))
    }

    fn visit_unit<E: Error>(self) -> Result<If<T>, E> {
        Ok(If(None))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut values: A) -> Result<If<T>, A::Error> {
        while values.next_element::<IgnoredAny>()?.is_some() {}
        Ok(If(None))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<If<T>, A::Error> {
        while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(If(None))
    }
}

impl<'de, T: Wanted> Deserialize<'de> for If<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// A `T` from an object with its fields. By itself a struct would also be read from an array, by position.
#[derive(Debug, Default)]
pub(super) struct Object<T>(pub(super) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OfFields<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for OfFields<T> {
            type Value = Object<T>;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<Object<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(fields)).map(Object)
            }
        }
        deserializer.deserialize_map(OfFields(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_wanted_kind_of_value_is_one() {
        let number = |text| serde_json::from_str::<If<u64>>(text).unwrap().0;
        assert_eq!(number("18446744073709551615"), Some(u64::MAX));
        for other in ["-1", "1.5", "1e3", "18446744073709551616", "\"1\"", "true", "null", "[1,[2]]", "{\"a\":{}}"] {
            assert_eq!(number(other), None, "{other}");
        }
        assert_eq!(serde_json::from_str::<If<String>>("\"a\\nb\"").unwrap().0.as_deref(), Some("a\nb"));
        assert_eq!(serde_json::from_str::<If<String>>("1").unwrap().0, None);
        assert_eq!(serde_json::from_str::<If<bool>>("false").unwrap().0, Some(false));
        assert!(serde_json::from_str::<If<u64>>("{").is_err());
    }

    #[test]
    fn an_array_is_no_object() {
        #[derive(Debug, Default, serde::Deserialize)]
        #[serde(default)]
        struct Fields {
            a: If<u64>,
        }
        let read = |text| serde_json::from_str::<Object<Fields>>(text).map(|Object(fields)| fields.a.0);
        assert_eq!(read("{\"a\":1,\"b\":[2]}").unwrap(), Some(1));
        assert!(read("[1]").is_err());
        assert!(read("1").is_err());
    }
}
