//! Messages of the kata-agent and of the containerd shim, generated at build time from `protos/*.proto`, and the one
//! safe way to decode them.
//!
//! A leaf. Where the numbers come from stands in those files; which calls are made with them, in `collect::kata`.

use protobuf::rt::WireType;
use protobuf::{CodedInputStream, Message};

pub use generated::{agent, cgroups_v1, cgroups_v2, task};

/// Written by a generator that follows its own rules.
#[allow(missing_docs, unsafe_code, clippy::all, clippy::pedantic, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/protos/mod.rs"));
}

/// Decodes a message from bytes that nobody vouches for. Unknown fields are skipped.
///
/// Not `Message::parse_from_bytes`: its reader (protobuf 3.7) knows no end, and reserves what a length claims, up to
/// 10 MB, before it finds that the bytes are not there. Measured on a field of six bytes that claims 9 MB: 9 000 000
/// bytes there, 72 here.
pub fn decode<M: Message>(bytes: &[u8]) -> protobuf::Result<M> {
    let mut message = M::new();
    message.merge_from(&mut bounded(bytes)?)?;
    Ok(message)
}

/// The last length-delimited field with this number, without decoding or keeping any other.
///
/// For messages that carry much in one field: decoding the whole would keep whatever else a peer cares to add, at up
/// to 140 bytes of memory for each of its own.
pub fn bytes_field(message: &[u8], number: u32) -> protobuf::Result<Option<&[u8]>> {
    let mut input = bounded(message)?;
    let mut found = None;
    while let Some(tag) = input.read_raw_tag_or_eof()? {
        match WireType::new(tag & 7) {
            Some(WireType::LengthDelimited) => {
                let length = input.read_raw_varint32()?;
                let start = input.pos();
                input.skip_raw_bytes(length)?;
                if tag >> 3 == number {
                    found = slice(message, start, input.pos());
                }
            }
            Some(kind) => input.skip_field(kind)?,
            None => return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into()),
        }
    }
    Ok(found)
}

/// A reader that knows where the bytes end.
fn bounded(bytes: &[u8]) -> protobuf::Result<CodedInputStream<'_>> {
    let mut input = CodedInputStream::from_bytes(bytes);
    input.push_limit(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
    Ok(input)
}

fn slice(bytes: &[u8], start: u64, end: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Field 1 opens a group, in which field 1 claims 127 bytes that are not there.
    const LYING_GROUP: [u8; 3] = [0x0b, 0x0a, 0x7f];

    /// `stats`: an entry that claims 100 bytes, in which field 3 claims 90; neither is there.
    const LYING_ENTRY: [u8; 4] = [0x32, 100, 0x1a, 90];

    #[test]
    fn lengths_beyond_the_end_are_errors() {
        assert!(decode::<agent::Metrics>(&LYING_GROUP).is_err());
        assert!(decode::<agent::MemoryStats>(&LYING_ENTRY).is_err());
        assert!(bytes_field(&LYING_GROUP, 1).is_err());
        assert!(bytes_field(&[0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f], 1).is_err());
        assert!(bytes_field(&[0x0f], 1).is_err(), "wire type 7 does not exist");
    }

    #[test]
    fn unknown_fields_are_skipped() {
        let version = agent::VersionCheckResponse { agent_version: "4.1.0".into(), ..Default::default() };
        let mut bytes = version.write_to_bytes().unwrap();
        // Field 900 varint, field 901 fixed64, field 902 bytes, field 903 group, field 904 fixed32.
        bytes.extend([0xa0, 0x38, 5, 0xa9, 0x38, 1, 2, 3, 4, 5, 6, 7, 8, 0xb2, 0x38, 1, 9, 0xbb, 0x38, 0xbc, 0x38]);
        bytes.extend([0xc5, 0x38, 1, 2, 3, 4]);
        assert_eq!(decode::<agent::VersionCheckResponse>(&bytes).unwrap().agent_version, "4.1.0");
        assert_eq!(bytes_field(&bytes, 2).unwrap(), Some(&b"4.1.0"[..]));
        assert_eq!(bytes_field(&bytes, 902).unwrap(), Some(&[9][..]));
        assert_eq!(bytes_field(&bytes, 1).unwrap(), None);
    }

    #[test]
    fn the_last_of_a_repeated_field_counts() {
        assert_eq!(bytes_field(&[0x0a, 1, b'a', 0x0a, 2, b'b', b'c'], 1).unwrap(), Some(&b"bc"[..]));
        assert_eq!(bytes_field(&[0x0a, 0], 1).unwrap(), Some(&b""[..]));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_message_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode::<agent::StatsContainerResponse>(&bytes);
            let _ = decode::<agent::VolumeStatsResponse>(&bytes);
            let _ = decode::<task::StatsResponse>(&bytes);
            let _ = decode::<task::StateResponse>(&bytes);
            let _ = decode::<cgroups_v1::Metrics>(&bytes);
            let _ = decode::<cgroups_v2::Metrics>(&bytes);
            let _ = bytes_field(&bytes, 2);
        }
    }
}
