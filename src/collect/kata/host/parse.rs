//! Files of `/proc/<pid>` and of a sandbox's cgroups to numbers. Pure.

use crate::collect::cgroup::parse::{self, ParseError};
use crate::model::host_side::HostMemory;
use crate::model::units::Bytes;

/// What is wanted of `/proc/<pid>/stat`.
///
/// ```text
/// 228 (cloud-hyperviso) S 219 218 0 0 -1 4194560 45626 0 171 0 1949 1271 0 0 20 0 9 0 2887 1243303936 …
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Name, cut to 15 characters for user processes. It may hold any character, parentheses and blanks among them.
    pub comm: &'a [u8],
    /// `Z` for a process that has ended and was not waited for.
    pub state: u8,
    /// Parent's pid.
    pub parent: u32,
    /// `utime` and `stime` of all threads, those that have ended included.
    pub ticks: u64,
    /// How many it has.
    pub threads: u64,
    /// When it was started, in ticks since boot: with the pid, who it is.
    pub start: u64,
}

impl<'a> Stat<'a> {
    /// Parses the file.
    pub fn parse(content: &'a [u8]) -> Result<Self, ParseError> {
        Self::find(content).ok_or(ParseError("stat"))
    }

    fn find(content: &'a [u8]) -> Option<Self> {
        let open = content.iter().position(|byte| *byte == b'(')?;
        let close = content.iter().rposition(|byte| *byte == b')')?;
        let comm = content.get(open + 1..close)?;
        let mut fields = content.get(close + 1..)?.split(|byte| byte.is_ascii_whitespace()).filter(|f| !f.is_empty());
        // Numbered as in proc(5): what follows the name is field 3.
        let state = *fields.next()?.first()?;
        let parent = parse::number(fields.next()?)?;
        let mut fields = fields.skip(14 - 5);
        let user = parse::number(fields.next()?)?;
        let system = parse::number(fields.next()?)?;
        let mut fields = fields.skip(20 - 16);
        let threads = parse::number(fields.next()?)?;
        let start = parse::number(fields.nth(1)?)?;
        let parent = u32::try_from(parent).ok()?;
        Some(Self { comm, state, parent, ticks: user.checked_add(system)?, threads, start })
    }
}

/// What is wanted of `/proc/<pid>/status`: `VmRSS:` and `192908 kB` behind a tab. Processes without memory of their own
/// have none of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// `VmRSS`
    pub resident: Option<Bytes>,
    /// `RssAnon`
    pub anon: Option<Bytes>,
    /// `RssShmem`
    pub shmem: Option<Bytes>,
}

impl Status {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut status = Self::default();
        for line in content.split(|byte| *byte == b'\n') {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (key, value) = line.split_at(colon);
            let (name, field) = match key {
                b"VmRSS" => ("VmRSS", &mut status.resident),
                b"RssAnon" => ("RssAnon", &mut status.anon),
                b"RssShmem" => ("RssShmem", &mut status.shmem),
                _ => continue,
            };
            let kib = value.strip_prefix(b":").and_then(|value| value.trim_ascii().strip_suffix(b" kB"));
            *field = Some(Bytes::from_kib(kib.and_then(parse::number).ok_or(ParseError(name))?));
        }
        Ok(status)
    }
}

/// What is wanted of `/proc/<pid>/io`: `read_bytes: 47120384`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// `read_bytes`
    pub read: u64,
    /// `write_bytes`
    pub written: u64,
}

impl Io {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let (mut read, mut written) = (None, None);
        for (key, value) in parse::keyed(content) {
            match key {
                b"read_bytes:" => read = parse::number(value),
                b"write_bytes:" => written = parse::number(value),
                _ => {}
            }
        }
        match (read, written) {
            (Some(read), Some(written)) => Ok(Self { read, written }),
            _ => Err(ParseError("io")),
        }
    }
}

/// `memory.stat` of cgroup v2. `kernel` came with 5.18; before, its parts make it up as far as the kernel tells them.
pub fn memory_v2(content: &[u8]) -> Result<HostMemory, ParseError> {
    let (mut anon, mut shmem, mut kernel) = (None, None, None);
    let mut parts = None;
    for (key, value) in parse::keyed(content) {
        let number = |name| parse::number(value).ok_or(ParseError(name));
        match key {
            b"anon" => anon = Some(number("anon")?),
            b"shmem" => shmem = Some(number("shmem")?),
            b"kernel" => kernel = Some(number("kernel")?),
            b"kernel_stack" | b"pagetables" | b"percpu" | b"vmalloc" | b"slab" => {
                parts = Some(number("kernel memory")?.saturating_add(parts.unwrap_or(0)));
            }
            _ => {}
        }
    }
    let kernel = kernel.or(parts);
    Ok(HostMemory { anon: anon.map(Bytes), shmem: shmem.map(Bytes), kernel: kernel.map(Bytes), hugetlb: None })
}

/// `memory.stat` of cgroup v1, child cgroups included. Kernel memory is a file of its own there.
pub fn memory_v1(content: &[u8]) -> Result<HostMemory, ParseError> {
    let mut memory = HostMemory::default();
    for (key, value) in parse::keyed(content) {
        let bytes = |name| parse::number(value).map(Bytes).ok_or(ParseError(name));
        match key {
            b"total_rss" => memory.anon = Some(bytes("total_rss")?),
            b"total_shmem" => memory.shmem = Some(bytes("total_shmem")?),
            _ => {}
        }
    }
    Ok(memory)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"228 (cloud-hyperviso) S 219 218 0 0 -1 4194560 45626 0 171 0 1949 1271 0 0 20 0 9 0 2887 1243303936 48227 18446744073709551615\n";

    #[test]
    fn stat_fields_are_found_behind_any_name() {
        let stat = Stat::parse(STAT).unwrap();
        // 1949 + 1271 = 3220 ticks
        let expected =
            Stat { comm: b"cloud-hyperviso", state: b'S', parent: 219, ticks: 3220, threads: 9, start: 2887 };
        assert_eq!(stat, expected);
        let odd = b"7 (a) Z 1 (b (c)) R 6 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 5 0 99 0";
        let stat = Stat::parse(odd).unwrap();
        assert_eq!(
            (stat.comm, stat.parent, stat.ticks, stat.threads, stat.start),
            (&b"a) Z 1 (b (c)"[..], 6, 3, 5, 99)
        );
        for bad in [&b""[..], b"1", b"1 (x", b"1 x) S 1", b")(", b"1 (x) S", b"1 (x) S -1 0 0 0", &STAT[..80]] {
            assert_eq!(Stat::parse(bad), Err(ParseError("stat")), "{bad:?}");
        }
    }

    #[test]
    fn status_in_kibibytes_and_absent_for_kernel_threads() {
        let status = Status::parse(b"Name:\tx\nVmRSS:\t  192908 kB\nRssAnon:\t    1536 kB\nRssShmem:\t  179704 kB\n");
        let expected = Status {
            resident: Some(Bytes(197_537_792)), // 192908 * 1024
            anon: Some(Bytes(1_572_864)),       // 1536 * 1024
            shmem: Some(Bytes(184_016_896)),    // 179704 * 1024
        };
        assert_eq!(status, Ok(expected));
        assert_eq!(Status::parse(b"Name:\tkthreadd\nThreads:\t1\n"), Ok(Status::default()));
        assert_eq!(Status::parse(b"VmRSS:\t12 MB\n"), Err(ParseError("VmRSS")));
    }

    #[test]
    fn io_needs_both_counters() {
        let io =
            b"rchar: 1\nwchar: 2\nsyscr: 3\nsyscw: 4\nread_bytes: 47120384\nwrite_bytes: 5\ncancelled_write_bytes: 6\n";
        assert_eq!(Io::parse(io), Ok(Io { read: 47_120_384, written: 5 }));
        assert_eq!(Io::parse(b"read_bytes: 1\n"), Err(ParseError("io")));
        assert_eq!(Io::parse(b"read_bytes: x\nwrite_bytes: 1\n"), Err(ParseError("io")));
    }

    #[test]
    fn kernel_memory_is_the_kernels_sum_or_ours() {
        let new = b"anon 3641344\nfile 9\nkernel 2564096\nkernel_stack 212992\nslab 1\nshmem 181997568\n";
        let expected = HostMemory {
            anon: Some(Bytes(3_641_344)),
            shmem: Some(Bytes(181_997_568)),
            kernel: Some(Bytes(2_564_096)),
            hugetlb: None,
        };
        assert_eq!(memory_v2(new), Ok(expected));
        let old = memory_v2(b"anon 1\nkernel_stack 100\nslab 20\nshmem 2\nslab_reclaimable 7\n").unwrap();
        assert_eq!(old.kernel, Some(Bytes(120)));
        assert_eq!(memory_v2(b"anon 1\nshmem 2\n").unwrap().kernel, None);
        assert_eq!(memory_v2(b"anon x\n"), Err(ParseError("anon")));
        let v1 = memory_v1(b"rss 1\nshmem 2\ntotal_rss 30\ntotal_shmem 40\n").unwrap();
        assert_eq!((v1.anon, v1.shmem, v1.kernel), (Some(Bytes(30)), Some(Bytes(40)), None));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_facts_or_an_error(content in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = (Stat::parse(&content), Status::parse(&content), Io::parse(&content));
            let _ = (memory_v1(&content), memory_v2(&content));
        }

        #[test]
        fn any_name_is_a_name(comm in "[^\u{0}\n]{0,15}") {
            let line = format!("7 ({comm}) R 6 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 5 0 99 0\n");
            let stat = Stat::parse(line.as_bytes()).unwrap();
            proptest::prop_assert_eq!((stat.comm, stat.start), (comm.as_bytes(), 99));
        }
    }
}
