//! The node's mount table: `mountinfo` of its first process.
//!
//! Not by the `procfs` crate, which refuses the whole table for one line it does not understand, and there are some: the
//! directory of a volume that a pod has bound may be named with any blank of Unicode's, and a mount may have no source.
//! It also leaves names as the kernel writes them.
//!
//! ```text
//! 36 35 8:16 /export/a\040b /mnt/data rw,noatime shared:1 master:2 - ext4 /dev/sdb rw,errors=continue
//! id parent device root mount-point options optional… - type source options-of-the-filesystem
//! ```

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::collect::CollectError;
use crate::collect::cgroup::parse::ParseError;
use crate::collect::held::read_once;

/// A mount, as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount<'t> {
    /// The filesystem's number, `8:16`.
    pub majmin: &'t str,
    /// What of the filesystem is mounted.
    pub root: Cow<'t, Path>,
    /// Where.
    pub point: Cow<'t, Path>,
    /// `ext4`, or `fuse.sshfs`.
    pub fs_type: Cow<'t, str>,
    /// A device, a share or a name that somebody chose; may be empty.
    pub source: Cow<'t, str>,
    /// Nobody can write to it: not at this place, or not at all.
    pub readonly: bool,
}

impl<'t> Mount<'t> {
    fn parse(line: &'t [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ').skip(2);
        let majmin = std::str::from_utf8(fields.next()?).ok()?;
        let (root, point, options) = (path(fields.next()?), path(fields.next()?), fields.next()?);
        // Optional fields, as many as there are, up to a dash.
        fields.find(|field| *field == b"-")?;
        let (fs_type, source, of_filesystem) = (text(fields.next()?), text(fields.next()?), fields.next()?);
        let readonly =
            [options, of_filesystem].iter().any(|all| all.split(|byte| *byte == b',').any(|one| one == b"ro"));
        Some(Self { majmin, root, point, fs_type, source, readonly })
    }
}

/// The mounts of such a file, in its order, or that one of its lines is none.
pub fn parse(content: &[u8]) -> Result<Vec<Mount<'_>>, ParseError> {
    let lines = content.split_inclusive(|byte| *byte == b'\n');
    let mounts = lines.map(|line| line.strip_suffix(b"\n").and_then(Mount::parse));
    mounts.collect::<Option<_>>().ok_or(ParseError("mountinfo"))
}

/// What was read of the table.
#[derive(Debug)]
pub(super) struct MountTable {
    path: PathBuf,
    content: Vec<u8>,
}

impl MountTable {
    /// Reads it. A process without any mount is none.
    pub(super) fn read(proc: &Path) -> Result<Self, CollectError> {
        let path = proc.join("1/mountinfo");
        let mut content = Vec::new();
        let problem = match read_once(&path, &mut content).map(<[u8]>::len) {
            Ok(0) => "empty".to_owned(),
            Ok(length) => {
                content.truncate(length);
                return Ok(Self { path, content });
            }
            Err(error) => error.to_string(),
        };
        Err(CollectError::Read(format!("{}: {problem}", path.display())))
    }

    /// The mounts, the first one first: of those over each other the last is the one that is seen.
    pub(super) fn mounts(&self) -> Result<Vec<Mount<'_>>, CollectError> {
        parse(&self.content).map_err(|error| CollectError::Read(format!("{}: {error}", self.path.display())))
    }
}

fn path(field: &[u8]) -> Cow<'_, Path> {
    match unescaped(field) {
        Cow::Borrowed(bytes) => Cow::Borrowed(Path::new(OsStr::from_bytes(bytes))),
        Cow::Owned(bytes) => Cow::Owned(PathBuf::from(OsString::from_vec(bytes))),
    }
}

fn text(field: &[u8]) -> Cow<'_, str> {
    match unescaped(field) {
        Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
        Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
    }
}

/// The kernel writes blanks, line ends, backslashes and `#` as a backslash and three octal digits.
fn unescaped(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let escaped = after.split_at_checked(3).filter(|_| *first == b'\\');
        let (byte, after) =
            escaped.and_then(|(digits, after)| Some((octal(digits)?, after))).unwrap_or((*first, after));
        plain.push(byte);
        rest = after;
    }
    Cow::Owned(plain)
}

fn octal(digits: &[u8]) -> Option<u8> {
    u8::from_str_radix(std::str::from_utf8(digits).ok().filter(|digits| !digits.starts_with('+'))?, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"36 35 8:16 /export/a\\040b /mnt/my\\040disk ro,noatime shared:1 master:2 - ext4 /dev/sdb rw,errors=continue\n\
        40 35 0:31 / /run/user rw - tmpfs none rw,size=1048576k,mode=755\n\
        41 35 0:32 / /mnt/b rw,nosuid unbindable - fuse.sshfs  ro,user_id=0\n";

    #[test]
    fn a_mount_is_told_as_it_is_named() {
        let mounts = parse(TABLE).unwrap();
        let points: Vec<&str> = mounts.iter().map(|mount| mount.point.to_str().unwrap()).collect();
        assert_eq!(points, ["/mnt/my disk", "/run/user", "/mnt/b"]);
        assert_eq!((mounts[0].majmin, mounts[0].root.to_str()), ("8:16", Some("/export/a b")));
        assert_eq!(mounts.iter().map(|mount| &*mount.source).collect::<Vec<_>>(), ["/dev/sdb", "none", ""]);
        assert_eq!(mounts.iter().map(|mount| &*mount.fs_type).collect::<Vec<_>>(), ["ext4", "tmpfs", "fuse.sshfs"]);
        assert_eq!(mounts.iter().map(|mount| mount.readonly).collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn no_name_costs_the_other_mounts() {
        // A directory of a volume that a pod has bound: a blank of Unicode's, and what is no text.
        for name in ["\u{a0}".as_bytes(), "\u{3000}".as_bytes(), b"\xff", b"\\134", b"\\", b"\\12", b"\\+01", b"\\999"]
        {
            let line = [b"50 35 8:16 /a".as_slice(), name, b" /mnt/c rw - ext4 /dev/sdb rw\n"].concat();
            let table = [TABLE, &line].concat();
            let mounts = parse(&table).unwrap();
            let expected = if name == b"\\134" { b"\\" } else { name };
            assert_eq!(mounts[3].root.as_os_str().as_bytes(), [b"/a", expected].concat());
            assert_eq!((mounts.len(), &*mounts[3].point), (4, Path::new("/mnt/c")));
        }
    }

    #[test]
    fn what_is_cut_or_no_table_is_refused() {
        for length in 1..TABLE.len() {
            let whole_lines = TABLE[length - 1] == b'\n';
            assert_eq!(parse(&TABLE[..length]).is_ok(), whole_lines, "{length}");
        }
        for other in ["\n", "MemTotal: 1 kB\n", "36 35 8:16 / / rw shared:1 ext4 /dev/sdb rw\n"] {
            assert_eq!(parse(other.as_bytes()), Err(ParseError("mountinfo")), "{other:?}");
        }
        assert_eq!(parse(b""), Ok(Vec::new()));
    }

    #[test]
    fn the_table_of_this_machine_is_read() {
        let table = MountTable::read(Path::new("/proc")).unwrap();
        let root = table.mounts().unwrap().into_iter().find(|mount| &*mount.point == Path::new("/")).unwrap();
        assert!(!root.fs_type.is_empty() && root.majmin.contains(':'));
        let nowhere = tempfile::tempdir().unwrap();
        let problem = |proc: &Path| MountTable::read(proc).unwrap_err().to_string();
        assert!(problem(nowhere.path()).ends_with("1/mountinfo: No such file or directory (os error 2)"));
        std::fs::create_dir(nowhere.path().join("1")).unwrap();
        std::fs::write(nowhere.path().join("1/mountinfo"), "").unwrap();
        assert!(problem(nowhere.path()).ends_with("1/mountinfo: empty"));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_table_or_none(content in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = parse(&content);
        }

        #[test]
        fn any_name_is_found_behind_the_kernels_escapes(name in proptest::collection::vec(1u8.., 1..20)) {
            let escaped: Vec<u8> = name.iter().flat_map(|byte| match byte {
                b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                byte => vec![*byte],
            }).collect();
            let line = [b"1 2 0:1 / /".as_slice(), &escaped, b" rw - tmpfs x rw\n"].concat();
            let mounts = parse(&line).unwrap();
            proptest::prop_assert_eq!(mounts[0].point.as_os_str().as_bytes(), [b"/".as_slice(), &name].concat());
        }
    }
}
