//! Files of `/proc/<pid>` and of a sandbox's cgroups to numbers. Pure.

use crate::collect::cgroup::parse::{self, ParseError};
use crate::model::host_side::HostMemory;
use crate::model::units::Bytes;

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
            let _ = (Status::parse(&content), Io::parse(&content));
            let _ = (memory_v1(&content), memory_v2(&content));
        }
    }
}
