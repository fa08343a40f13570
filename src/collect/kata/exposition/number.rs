//! Sample values to numbers: plain decimals, Go's `%g`, nothing rounded.

use crate::collect::cgroup::parse;

/// A value that counts something: whole, not negative, not beyond 64 bits. `4.91552768e+08`, `1000.0` and `12` are,
/// `0.5`, `-1`, `NaN` and `+Inf` are not.
pub fn integer(text: &[u8]) -> Option<u64> {
    parse::number(text).or_else(|| scientific(text))
}

fn scientific(text: &[u8]) -> Option<u64> {
    let (mantissa, exponent) = match text.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (&text[..at], signed(&text[at + 1..])?),
        None => (text, 0),
    };
    let (negative, mantissa) = match mantissa {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let (whole, fraction) = match mantissa.iter().position(|byte| *byte == b'.') {
        Some(at) => (&mantissa[..at], &mantissa[at + 1..]),
        None => (mantissa, &[][..]),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let zeros = fraction.iter().rev().take_while(|digit| **digit == b'0').count();
    let fraction = &fraction[..fraction.len() - zeros];
    let digits = whole.iter().chain(fraction).try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })?;
    if digits == 0 {
        return Some(0);
    }
    if negative {
        return None;
    }
    let shift = exponent - i64::try_from(fraction.len()).ok()?;
    let power = 10u64.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift >= 0 { digits.checked_mul(power) } else { digits.is_multiple_of(power).then(|| digits / power) }
}

fn signed(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let magnitude = i64::from(u16::try_from(parse::number(digits)?).ok()?);
    Some(if negative { -magnitude } else { magnitude })
}

/// A value that measures something: finite and not negative.
pub fn measure(text: &[u8]) -> Option<f64> {
    let number: f64 = std::str::from_utf8(text).ok()?.parse().ok()?;
    (number.is_finite() && number >= 0.0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_in_every_spelling() {
        for (text, number) in [
            ("0", 0),
            ("-0", 0),
            ("0e+00", 0),
            ("0.000", 0),
            ("0e999", 0),
            ("12", 12),
            ("+12", 12),
            ("1000.0", 1000),
            ("1e+06", 1_000_000),
            ("1E6", 1_000_000),
            ("4.91552768e+08", 491_552_768),
            ("1.2345e4", 12_345),
            ("1200e-2", 12),
            (".5e1", 5),
            ("5.", 5),
            ("1.8446744073709550e+19", 18_446_744_073_709_550_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(integer(text.as_bytes()), Some(number), "{text}");
        }
    }

    #[test]
    fn what_is_no_count_is_nothing() {
        for text in [
            "",
            ".",
            "e",
            "e5",
            "1e",
            "1e+",
            "-",
            "+",
            "-1",
            "-1e0",
            "0.5",
            "1.5e0",
            "12.34e1",
            "NaN",
            "+Inf",
            "-Inf",
            "inf",
            "1 2",
            " 1",
            "0x10",
            "1_000",
            "1e20",
            "1.8446744073709552e+19",
            "18446744073709551616",
            "1e99999999999",
            "1e-99999999999",
            "1.2.3",
            "1e1e1",
            "--1",
            "99999999999999999999e-19",
            "٣",
        ] {
            assert_eq!(integer(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn measures_are_finite_and_not_negative() {
        assert_eq!(measure(b"0.3799999952316284"), Some(0.379_999_995_231_628_4));
        assert_eq!(measure(b"1e-2"), Some(0.01));
        assert_eq!(measure(b"0"), Some(0.0));
        for text in ["NaN", "+Inf", "-Inf", "-0.1", "1e999", "", "x", "0.1 "] {
            assert_eq!(measure(text.as_bytes()), None, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_float_that_is_a_count_is_read_exactly(count in 0u64..(1 << 53), text in 0..3) {
            #[expect(clippy::cast_precision_loss, reason = "below 2^53 nothing is lost")]
            let float = count as f64;
            let spelled = match text { 0 => format!("{float}"), 1 => format!("{float:e}"), _ => format!("{float:.3}") };
            proptest::prop_assert_eq!(integer(spelled.as_bytes()), Some(count));
        }

        #[test]
        fn any_bytes_give_a_number_or_none(text in proptest::collection::vec(proptest::num::u8::ANY, 0..40)) {
            let _ = (integer(&text), measure(&text));
        }
    }
}
