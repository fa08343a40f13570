//! Ids that look like a runtime's and are the same in every run.
//!
//! A test that prints or compares an id must not see another one tomorrow, so ids are derived from names
//! instead of drawn at random.

/// 64 lower-case hexadecimal digits, as containerd makes them for sandboxes and containers.
pub(crate) fn hex_id(seed: &str) -> String {
    words(seed).map(|word| format!("{word:016x}")).concat()
}

/// A version 4 UUID in its usual form, as the API server makes it for a pod.
pub(crate) fn uuid(seed: &str) -> String {
    let [high, low, ..] = words(seed);
    // The two masks set the version and the variant, which some parsers check.
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    let digits = format!("{high:016x}{low:016x}");
    let mut parts = Vec::new();
    let mut rest = digits.as_str();
    for length in [8, 4, 4, 4, 12] {
        let (part, after) = rest.split_at(length);
        parts.push(part);
        rest = after;
    }
    parts.join("-")
}

/// Four words spread from `seed`: FNV-1a, then SplitMix64. Distinct names must give distinct ids; nothing
/// here has to withstand an adversary.
fn words(seed: &str) -> [u64; 4] {
    let mut state = seed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    std::array::from_fn(|_| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_the_runtime_s_shape_and_follow_the_name() {
        let id = hex_id("shop/web");
        assert_eq!(id.len(), 64);
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase()));
        assert_eq!(id, hex_id("shop/web"));
        assert_ne!(id, hex_id("shop/web2"));
    }

    #[test]
    fn uuids_are_version_4() {
        let uuid = uuid("shop/web");
        let lengths: Vec<_> = uuid.split('-').map(str::len).collect();
        assert_eq!(lengths, [8, 4, 4, 4, 12]);
        assert_eq!(uuid.as_bytes()[14], b'4');
        assert!(b"89ab".contains(&uuid.as_bytes()[19]));
    }
}
