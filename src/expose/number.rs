//! Numbers in Go's shortest form, `strconv.FormatFloat(f, 'g', -1, 64)`: what Prometheus' own libraries write, so that
//! a body can be compared with the kubelet's byte by byte.

use std::io::Write;

use crate::model::units::Value;

/// Integers below this have at most 15 digits; no two such decimals share a float, so their own digits, trailing zeros
/// dropped, are the shortest form and no float is needed to find it.
const EXACT: u64 = 1_000_000_000_000_000;

/// Appends a value.
pub fn write(value: Value, out: &mut Vec<u8>) {
    match value {
        Value::Int(count) if count < EXACT => write_decimal(count, 0, out),
        Value::Decimal { mantissa, scale } if mantissa < EXACT => write_decimal(mantissa, scale, out),
        other => write_float(other.as_f64(), out),
    }
}

fn write_decimal(mantissa: u64, scale: u8, out: &mut Vec<u8>) {
    let mut buffer = itoa::Buffer::new();
    let digits = buffer.format(mantissa).as_bytes();
    // At most 15 digits: the cast cannot lose anything.
    let exponent = i32::try_from(digits.len()).unwrap_or(0) - 1 - i32::from(scale);
    write_digits(digits, exponent, out);
}

/// Appends a float.
pub fn write_float(number: f64, out: &mut Vec<u8>) {
    if number.is_nan() {
        return out.extend_from_slice(b"NaN");
    }
    if number.is_infinite() {
        return out.extend_from_slice(if number > 0.0 { b"+Inf" } else { b"-Inf" });
    }
    if number.is_sign_negative() {
        out.push(b'-');
    }
    if number.fract() == 0.0 && number.abs() < EXACT as f64 {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number below the bound")]
        return write_decimal(number.abs() as u64, 0, out);
    }
    write_shortest(number, out);
}

/// Writes the shortest digits that read back as this finite number, its sign left out.
fn write_shortest(number: f64, out: &mut Vec<u8>) {
    let mut text = [0u8; 32];
    let mut rest = &mut text[..];
    // Always `d.ddde±n`. At most 24 bytes, so the write cannot fail.
    if write!(rest, "{:e}", number.abs()).is_err() {
        return;
    }
    let length = 32 - rest.len();
    let text = &text[..length];
    let Some(e) = text.iter().position(|byte| *byte == b'e') else { return };
    let exponent = std::str::from_utf8(&text[e + 1..]).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let mut digits = [0u8; 32];
    let mut count = 0;
    for digit in text[..e].iter().filter(|byte| **byte != b'.') {
        digits[count] = *digit;
        count += 1;
    }
    write_digits(&digits[..count], exponent, out);
}

/// Writes `d.ddd × 10^exponent`, plain for exponents from -4 to 5 and with an exponent of at least two digits beyond.
fn write_digits(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    let significant = digits.iter().rposition(|digit| *digit != b'0').map_or(0, |last| last + 1);
    if significant == 0 {
        return out.push(b'0');
    }
    let digits = &digits[..significant];
    if !(-4..6).contains(&exponent) {
        out.push(digits[0]);
        if digits.len() > 1 {
            out.push(b'.');
            out.extend_from_slice(&digits[1..]);
        }
        out.extend_from_slice(if exponent < 0 { b"e-" } else { b"e+" });
        let magnitude = exponent.unsigned_abs();
        if magnitude < 10 {
            out.push(b'0');
        }
        return out.extend_from_slice(itoa::Buffer::new().format(magnitude).as_bytes());
    }
    let Ok(before_point) = usize::try_from(exponent + 1) else {
        return write_small(digits, exponent, out);
    };
    if before_point == 0 {
        return write_small(digits, exponent, out);
    }
    for at in 0..before_point {
        out.push(digits.get(at).copied().unwrap_or(b'0'));
    }
    if digits.len() > before_point {
        out.push(b'.');
        out.extend_from_slice(&digits[before_point..]);
    }
}

/// Writes `0.000ddd`.
fn write_small(digits: &[u8], exponent: i32, out: &mut Vec<u8>) {
    out.extend_from_slice(b"0.");
    for _ in 0..(-exponent - 1) {
        out.push(b'0');
    }
    out.extend_from_slice(digits);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::units::Seconds;

    fn text(value: Value) -> String {
        let mut out = Vec::new();
        write(value, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn forms_are_gos() {
        for (number, form) in [
            (0.0, "0"),
            (1.0, "1"),
            (100_000.0, "100000"),
            (1_048_576.0, "1.048576e+06"),
            (1_000_000.0, "1e+06"),
            (1.782_468_729e9, "1.782468729e+09"),
            (0.1, "0.1"),
            (0.0001, "0.0001"),
            (0.000_012_5, "1.25e-05"),
            (123.456, "123.456"),
            (-1.0, "-1"),
            (1e100, "1e+100"),
            (5e-324, "5e-324"),
            (f64::INFINITY, "+Inf"),
            (f64::NEG_INFINITY, "-Inf"),
            (f64::NAN, "NaN"),
        ] {
            assert_eq!(text(Value::Float(number)), form);
        }
        assert_eq!(text(Value::Int(u64::MAX)), "1.8446744073709552e+19");
        assert_eq!(text(Value::Int(262_144)), "262144");
        assert_eq!(text(Seconds::from_micros(98_701_325_189).value()), "98701.325189");
        assert_eq!(text(Seconds::from_nanos(1).value()), "1e-09");
        assert_eq!(text(Seconds::from_micros(250).value()), "0.00025");
        assert_eq!(text(Seconds::from_micros(0).value()), "0");
        assert_eq!(text(Seconds::from_ticks(10_848_891).value()), "108488.91");
    }

    proptest::proptest! {
        #[test]
        fn exact_path_and_float_path_agree(mantissa in 0..EXACT, scale in 0u8..=9) {
            let value = Value::Decimal { mantissa, scale };
            let mut float = Vec::new();
            write_shortest(value.as_f64(), &mut float);
            proptest::prop_assert_eq!(text(value), String::from_utf8(float).unwrap());
        }

        #[test]
        fn whole_floats_are_written_as_their_shortest_digits(number in 0..EXACT) {
            let mut shortest = Vec::new();
            write_shortest(number as f64, &mut shortest);
            proptest::prop_assert_eq!(text(Value::Float(number as f64)), String::from_utf8(shortest).unwrap());
        }

        #[test]
        fn every_float_reads_back_as_itself(bits in proptest::num::u64::ANY) {
            let number = f64::from_bits(bits);
            proptest::prop_assume!(number.is_finite());
            proptest::prop_assert_eq!(text(Value::Float(number)).parse::<f64>().unwrap().to_bits(), bits);
        }
    }
}
