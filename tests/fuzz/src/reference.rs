//! The kernel's text formats read once more, in the plainest way: what the real parsers are held against.

/// The text behind the last line that begins with `key` and `separator`, without blanks around it.
pub fn last<'a>(content: &'a [u8], key: &str, separator: u8) -> Option<&'a [u8]> {
    let lines = content.split(|byte| *byte == b'\n');
    let mut values = lines.filter_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(&[separator]));
    values.next_back().map(<[u8]>::trim_ascii)
}

/// Digits and nothing else, to a number of 64 bits.
pub fn number(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?;
    // Rust takes a plus sign as well.
    if text.starts_with('+') { None } else { text.parse().ok() }
}

/// Whether `text` has `part` in it.
pub fn contains(text: &[u8], part: &[u8]) -> bool {
    part.is_empty() || text.windows(part.len()).any(|window| window == part)
}

/// A number that is fixed by the input but looks like nothing: where a target has to choose, so that the choice is the
/// fuzzer's.
pub fn scrambled(input: &[u8]) -> u64 {
    // FNV-1a
    input.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The input in pieces of lengths that the input fixes.
pub fn pieces(input: &[u8]) -> Vec<&[u8]> {
    let mut state = scrambled(input) | 1;
    let mut rest = input;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let longest = if state >> 63 == 0 { 7 } else { 300 };
        let length = 1 + usize::try_from((state >> 33) % longest).unwrap_or(0);
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
