//! What a client says that it is: the `Authorization` header taken apart. Pure, and fed by anybody: any bytes give some
//! [`Credentials`].

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::secret::Secret;

/// Longest header looked at. Service account tokens are about 1 KiB.
const MAX_HEADER: usize = 16 * 1024;

/// The credentials of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// None, or none that can be understood.
    None,
    /// Scheme `Basic`.
    Basic {
        /// Everything before the first colon.
        user: Secret,
        /// Everything after it.
        password: Secret,
    },
    /// Scheme `Bearer`.
    Bearer(Secret),
}

impl Credentials {
    /// Reads all `Authorization` headers of a request. Two of them are none: which one counts is a matter of opinion.
    pub fn of<'h>(headers: impl IntoIterator<Item = &'h [u8]>) -> Self {
        let mut headers = headers.into_iter();
        match (headers.next(), headers.next()) {
            (Some(only), None) => Self::parse(only).unwrap_or(Self::None),
            _ => Self::None,
        }
    }

    fn parse(header: &[u8]) -> Option<Self> {
        if header.len() > MAX_HEADER {
            return None;
        }
        let (scheme, rest) = std::str::from_utf8(header).ok()?.trim().split_once(' ')?;
        let rest = rest.trim_start_matches(' ');
        if scheme.eq_ignore_ascii_case("basic") {
            let pair = String::from_utf8(STANDARD.decode(rest).ok()?).ok()?;
            let (user, password) = pair.split_once(':')?;
            return Some(Self::Basic { user: Secret::new(user), password: Secret::new(password) });
        }
        if scheme.eq_ignore_ascii_case("bearer") {
            return is_token(rest).then(|| Self::Bearer(Secret::new(rest)));
        }
        None
    }
}

/// The characters of RFC 6750, so that nothing else ever reaches the API server.
fn is_token(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    !body.is_empty()
        && body
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(header: &str) -> Credentials {
        Credentials::of([header.as_bytes()])
    }

    fn basic(user: &str, password: &str) -> Credentials {
        Credentials::Basic { user: Secret::new(user), password: Secret::new(password) }
    }

    #[test]
    fn both_schemes_are_read_in_any_case() {
        assert_eq!(of("Basic YWxpY2U6c2VjcmV0"), basic("alice", "secret"));
        assert_eq!(of("bAsIc  YWxpY2U6c2VjcmV0 "), basic("alice", "secret"));
        assert_eq!(of("Basic YWxpY2U6YTpiOg=="), basic("alice", "a:b:"), "a password may have colons");
        assert_eq!(of("Basic Og=="), basic("", ""));
        assert_eq!(of("Bearer ey.J-_~+/x=="), Credentials::Bearer(Secret::new("ey.J-_~+/x==")));
        assert_eq!(of("bearer t"), Credentials::Bearer(Secret::new("t")));
    }

    #[test]
    fn what_is_no_credential_is_none() {
        for header in [
            "",
            "Basic",
            "Basic ",
            "BasicYWxpY2U6c2VjcmV0",
            "Basic YWxpY2U=",
            "Basic !!!",
            "Basic YWxpY2U6c2VjcmV0 x",
            "Basic //46Og==",
            "Bearer",
            "Bearer ",
            "Bearer =",
            "Bearer a b",
            "Bearer a\nb",
            "Bearer a\"b",
            "Digest x",
            "Negotiate YWxpY2U6c2VjcmV0",
        ] {
            assert_eq!(of(header), Credentials::None, "{header:?}");
        }
        assert_eq!(Credentials::of([]), Credentials::None);
        assert_eq!(Credentials::of([&b"Bearer \xff"[..]]), Credentials::None);
        assert_eq!(of(&format!("Bearer {}", "a".repeat(MAX_HEADER))), Credentials::None);
        let twice = [&b"Basic YWxpY2U6c2VjcmV0"[..], b"Basic YWxpY2U6c2VjcmV0"];
        assert_eq!(Credentials::of(twice), Credentials::None, "two headers are none");
    }

    #[test]
    fn nothing_of_them_is_printed() {
        let printed = format!("{:?} {:?}", of("Basic YWxpY2U6c2VjcmV0"), of("Bearer topsecret"));
        assert!(
            !printed.contains("secret\"") && !printed.contains("alice") && !printed.contains("topsecret"),
            "{printed}"
        );
    }

    proptest! {
        #[test]
        fn any_bytes_give_some_credentials(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for scheme in [&b""[..], b"Basic ", b"Bearer "] {
                let header = [scheme, &bytes].concat();
                if let Credentials::Bearer(token) = Credentials::of([&header[..]]) {
                    prop_assert!(is_token(token.expose()));
                }
            }
        }
    }
}
