//! What must not be read by accident: texts that no log line shows, and digests that stand for them in memory.

use std::fmt;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use serde::Deserialize;

/// A text that is never printed, whoever formats what holds it.
#[derive(Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for those who work with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("<secret>")
    }
}

/// What stands for credentials in a table of those seen before.
pub type Tag = [u8; 32];

/// Makes tags under a key that this process alone knows: from a tag nobody finds the credentials, and how long a look-up
/// of one takes tells nothing about them.
pub struct Tagger {
    key: hmac::Key,
}

impl fmt::Debug for Tagger {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Tagger")
    }
}

impl Tagger {
    /// A tagger with a new random key.
    pub fn with_random_key() -> Self {
        let key: [u8; 32] = random();
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, &key) }
    }

    /// The tag of these parts, of which none can be taken for another.
    pub fn tag(&self, parts: &[&[u8]]) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.copy_from_slice(context.sign().as_ref());
        tag
    }
}

/// Bytes that nobody can foresee.
pub fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The kernel's generator cannot fail once the machine is up; without it there is no secret to be had.
    SystemRandom::new().fill(&mut bytes).expect("the kernel gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("hunter2");
        assert_eq!(format!("{secret:?} {:?}", Some(&secret)), "<secret> Some(<secret>)");
        assert_eq!(secret.expose(), "hunter2");
    }

    #[test]
    fn a_tag_depends_on_every_part_its_borders_and_the_key() {
        let tagger = Tagger::with_random_key();
        let tag = tagger.tag(&[b"alice", b"secret"]);
        assert_eq!(tag, tagger.tag(&[b"alice", b"secret"]));
        for other in [&[b"alices".as_slice(), b"ecret"], &[b"alice", b"Secret"], &[b"bob", b"secret"]] {
            assert_ne!(tag, tagger.tag(other));
        }
        assert_ne!(tag, tagger.tag(&[b"alicesecret"]));
        assert_ne!(tag, Tagger::with_random_key().tag(&[b"alice", b"secret"]), "another process, another key");
    }
}
