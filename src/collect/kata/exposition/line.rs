//! One sample line of the Prometheus text format: `name{label="value",…} number [timestamp]`. Pure.

use memchr::memchr2;

use super::number;

/// The line is not the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

/// A label's value as it stands between the quotes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quoted<'a> {
    /// The bytes between the quotes.
    pub text: &'a [u8],
    /// It has backslashes to be taken out.
    pub escaped: bool,
}

impl<'a> Quoted<'a> {
    /// The value, in `scratch` if it has to be rewritten.
    pub fn value<'b>(self, scratch: &'b mut Vec<u8>) -> Result<&'b [u8], Malformed>
    where
        'a: 'b,
    {
        if !self.escaped {
            return Ok(self.text);
        }
        scratch.clear();
        let mut bytes = self.text.iter();
        while let Some(byte) = bytes.next() {
            scratch.push(match byte {
                b'\\' => match bytes.next() {
                    Some(b'\\') => b'\\',
                    Some(b'"') => b'"',
                    Some(b'n') => b'\n',
                    _ => return Err(Malformed),
                },
                other => *other,
            });
        }
        Ok(scratch)
    }
}

/// The labels that facts are told apart by; others are skipped.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "named after the labels")]
pub struct Labels<'a> {
    pub item: Option<Quoted<'a>>,
    pub cpu: Option<Quoted<'a>>,
    pub interface: Option<Quoted<'a>>,
    pub disk: Option<Quoted<'a>>,
    pub mount: Option<Quoted<'a>>,
    pub device: Option<Quoted<'a>>,
}

/// What follows a metric's name.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Those that are known.
    pub labels: Labels<'a>,
    /// As it is written.
    pub value: &'a [u8],
}

/// A cursor over the rest of a line.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', rest @ ..] = self.rest {
            self.rest = rest;
        }
    }

    /// Steps over `byte`, if that is next.
    fn eat(&mut self, byte: u8) -> bool {
        match self.rest {
            [first, rest @ ..] if *first == byte => {
                self.rest = rest;
                true
            }
            _ => false,
        }
    }

    fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().position(|byte| !wanted(*byte)).unwrap_or(self.rest.len());
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// A value in quotes; the opening one has been eaten.
    fn quoted(&mut self) -> Result<Quoted<'a>, Malformed> {
        let mut escaped = false;
        let mut at = 0;
        loop {
            at += memchr2(b'"', b'\\', self.rest.get(at..).unwrap_or_default()).ok_or(Malformed)?;
            if self.rest.get(at) == Some(&b'"') {
                break;
            }
            escaped = true;
            at += 2;
        }
        let (text, rest) = self.rest.split_at(at);
        self.rest = rest;
        self.eat(b'"');
        Ok(Quoted { text, escaped })
    }

    /// `label="value",…}`; the opening brace has been eaten.
    fn labels(&mut self, mut take: impl FnMut(&'a [u8], Quoted<'a>) -> Result<(), Malformed>) -> Result<(), Malformed> {
        loop {
            self.skip_blanks();
            if self.eat(b'}') {
                return Ok(());
            }
            let name = self.take_while(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            self.skip_blanks();
            if name.is_empty() || !self.eat(b'=') {
                return Err(Malformed);
            }
            self.skip_blanks();
            if !self.eat(b'"') {
                return Err(Malformed);
            }
            take(name, self.quoted()?)?;
            self.skip_blanks();
            if !self.eat(b',') {
                return if self.eat(b'}') { Ok(()) } else { Err(Malformed) };
            }
        }
    }
}

/// Reads what follows the name on a line without leading or trailing blanks: hands each label to `take`, gives the
/// value's text.
pub fn each_label<'a>(
    rest: &'a [u8],
    take: impl FnMut(&'a [u8], Quoted<'a>) -> Result<(), Malformed>,
) -> Result<&'a [u8], Malformed> {
    let mut cursor = Cursor { rest };
    cursor.skip_blanks();
    if cursor.eat(b'{') {
        cursor.labels(take)?;
    }
    cursor.skip_blanks();
    let value = cursor.take_while(|byte| !matches!(byte, b' ' | b'\t'));
    cursor.skip_blanks();
    // A timestamp is allowed by the format; no Kata component writes one.
    let timestamp = cursor.rest.strip_prefix(b"-").unwrap_or(cursor.rest);
    if value.is_empty() || (!timestamp.is_empty() && number::integer(timestamp).is_none()) {
        return Err(Malformed);
    }
    Ok(value)
}

impl<'a> Sample<'a> {
    /// Reads what follows the name on a line without leading or trailing blanks.
    pub fn parse(rest: &'a [u8]) -> Result<Self, Malformed> {
        let mut labels = Labels::default();
        let value = each_label(rest, |name, value| {
            let place = match name {
                b"item" => &mut labels.item,
                b"cpu" => &mut labels.cpu,
                b"interface" => &mut labels.interface,
                b"disk" => &mut labels.disk,
                b"mount" => &mut labels.mount,
                b"device" => &mut labels.device,
                _ => &mut None,
            };
            if place.replace(value).is_some() { Err(Malformed) } else { Ok(()) }
        })?;
        Ok(Self { labels, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(rest: &str) -> Result<(Vec<u8>, String), Malformed> {
        let sample = Sample::parse(rest.as_bytes())?;
        let mut scratch = Vec::new();
        let item = sample.labels.item.unwrap_or_default().value(&mut scratch)?.to_vec();
        Ok((item, String::from_utf8(sample.value.to_vec()).unwrap()))
    }

    #[test]
    fn labels_in_any_order_with_anything_in_quotes() {
        for (rest, expected) in [
            (r#"{cpu="0",item="user"} 1"#, ("user", "1")),
            (r#"{item="user",cpu="0"} 1"#, ("user", "1")),
            (r#" { item = "user" , cpu = "0" , } 1 "#.trim_end(), ("user", "1")),
            (r#"{other="}",item="a,b}c{=\"\\\n"} 2"#, ("a,b}c{=\"\\\n", "2")),
            (r#"{item=""}  3"#, ("", "3")),
            (r#"{} 4"#, ("", "4")),
            (r#" 5"#, ("", "5")),
            (r#"{item="x"} 6 1700000000000"#, ("x", "6")),
            (r#"{item="x"} 6 -5"#, ("x", "6")),
            (r#"{item="x"}7"#, ("x", "7")),
        ] {
            assert_eq!(item(rest), Ok((expected.0.as_bytes().to_vec(), expected.1.to_owned())), "{rest}");
        }
    }

    #[test]
    fn what_is_not_the_format_is_said_to_be_so() {
        for rest in [
            "",
            " ",
            "{",
            "{}",
            "{item}",
            "{item=} 1",
            "{item=x} 1",
            r#"{item="x} 1"#,
            r#"{item="x\"} 1"#,
            r#"{item="x\"#,
            r#"{item="x" 1"#,
            r#"{item="x" cpu="0"} 1"#,
            r#"{item="x",,cpu="0"} 1"#,
            r#"{="x"} 1"#,
            r#"{item="x",item="y"} 1"#,
            r#"{it-em="x"} 1"#,
            r#"{item="x"} 1 2 3"#,
            r#"{item="x"} 1 never"#,
            r#"{item="x\y"} 1"#,
        ] {
            assert_eq!(item(rest), Err(Malformed), "{rest}");
        }
    }
}
