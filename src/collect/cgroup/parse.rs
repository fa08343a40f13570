//! Kernel cgroup file formats to numbers. Pure: bytes in, facts out; no files, no clock.
//!
//! Every function takes whatever a file held and gives a value or a [`ParseError`] that names the key. Unknown keys
//! are skipped, absent optional keys are `None`, and a malformed known key is an error: missing beats wrong.

use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::{DeviceIo, DeviceNumber, IoCost, Stall};

/// A file whose content is not what the kernel documents.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct ParseError(pub &'static str);

/// Decimal digits to a number. Nothing else is accepted: no sign, no blanks, no overflow.
pub fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        if !digit.is_ascii_digit() {
            return None;
        }
        sum.checked_mul(10)?.checked_add(u64::from(digit - b'0'))
    })
}

/// A file that holds one number and a line feed: `memory.current`, `pids.current`, `cpuacct.usage`.
pub fn single(content: &[u8], key: &'static str) -> Result<u64, ParseError> {
    number(content.trim_ascii()).ok_or(ParseError(key))
}

/// A file that holds one number or `max`: `memory.max`, `pids.max`.
pub fn limit(content: &[u8], key: &'static str) -> Result<Limit, ParseError> {
    match content.trim_ascii() {
        b"max" => Ok(Limit::Max),
        digits => number(digits).map(Limit::At).ok_or(ParseError(key)),
    }
}

/// `key value` lines, as in `cpu.stat` and `memory.stat`. Lines of another shape are skipped.
pub fn keyed(content: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines(content).filter_map(|line| {
        let space = line.iter().position(|byte| *byte == b' ')?;
        Some((&line[..space], line[space + 1..].trim_ascii()))
    })
}

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n')
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

/// Fills the named fields from `key value` lines; a known key with a malformed value is the error.
macro_rules! keyed_fields {
    ($content:expr, $target:expr, { $($key:literal => $field:ident),* $(,)? }) => {
        for (key, value) in keyed($content) {
            match key {
                $($key => $target.$field = Some(
                    number(value).ok_or(ParseError(ascii_name!($key)))?
                ),)*
                _ => {}
            }
        }
    };
}

macro_rules! ascii_name {
    ($key:literal) => {
        match std::str::from_utf8($key) {
            Ok(name) => name,
            Err(_) => "key",
        }
    };
}

/// `cpu.stat` of cgroup v2.
///
/// ```text
/// usage_usec 98701325189
/// user_usec 61355716211
/// system_usec 37345608977
/// nr_periods 3936904
/// nr_throttled 6004
/// throttled_usec 19175137007
/// nr_bursts 0
/// burst_usec 0
/// ```
/// The first three exist even without the cpu controller; the burst pair since kernel 5.14.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuStatV2 {
    /// Microseconds, all modes.
    pub usage_usec: Option<u64>,
    /// Microseconds in user mode.
    pub user_usec: Option<u64>,
    /// Microseconds in kernel mode.
    pub system_usec: Option<u64>,
    /// Enforcement periods.
    pub nr_periods: Option<u64>,
    /// Throttled periods.
    pub nr_throttled: Option<u64>,
    /// Microseconds throttled.
    pub throttled_usec: Option<u64>,
    /// Periods that used burst.
    pub nr_bursts: Option<u64>,
    /// Microseconds of burst.
    pub burst_usec: Option<u64>,
}

impl CpuStatV2 {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut stat = Self::default();
        keyed_fields!(content, stat, {
            b"usage_usec" => usage_usec, b"user_usec" => user_usec, b"system_usec" => system_usec,
            b"nr_periods" => nr_periods, b"nr_throttled" => nr_throttled, b"throttled_usec" => throttled_usec,
            b"nr_bursts" => nr_bursts, b"burst_usec" => burst_usec,
        });
        Ok(stat)
    }
}

/// `cpu.stat` of cgroup v1: `nr_periods`, `nr_throttled`, `throttled_time` in nanoseconds, and since kernel 5.14
/// `nr_bursts`, `burst_time`.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuStatV1 {
    /// Enforcement periods.
    pub nr_periods: Option<u64>,
    /// Throttled periods.
    pub nr_throttled: Option<u64>,
    /// Nanoseconds throttled.
    pub throttled_time: Option<u64>,
    /// Periods that used burst.
    pub nr_bursts: Option<u64>,
    /// Nanoseconds of burst.
    pub burst_time: Option<u64>,
}

impl CpuStatV1 {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut stat = Self::default();
        keyed_fields!(content, stat, {
            b"nr_periods" => nr_periods, b"nr_throttled" => nr_throttled, b"throttled_time" => throttled_time,
            b"nr_bursts" => nr_bursts, b"burst_time" => burst_time,
        });
        Ok(stat)
    }
}

/// `cpuacct.stat` of cgroup v1: `user` and `system` in clock ticks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct CpuacctStat {
    /// Ticks in user mode.
    pub user: Option<u64>,
    /// Ticks in kernel mode.
    pub system: Option<u64>,
}

impl CpuacctStat {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut stat = Self::default();
        keyed_fields!(content, stat, { b"user" => user, b"system" => system });
        Ok(stat)
    }
}

/// The keys of cgroup v2 `memory.stat` that are served; bytes, or pages and events where named so by the kernel.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's own key names, documented in its cgroup-v2 guide")]
pub struct MemoryStatV2 {
    pub anon: Option<u64>,
    pub file: Option<u64>,
    pub kernel: Option<u64>,
    pub file_mapped: Option<u64>,
    pub file_dirty: Option<u64>,
    pub file_writeback: Option<u64>,
    pub inactive_file: Option<u64>,
    pub active_file: Option<u64>,
    pub pgfault: Option<u64>,
    pub pgmajfault: Option<u64>,
    pub pgscan: Option<u64>,
    pub pgsteal: Option<u64>,
    pub workingset_refault_file: Option<u64>,
    pub workingset_refault_anon: Option<u64>,
}

impl MemoryStatV2 {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut stat = Self::default();
        keyed_fields!(content, stat, {
            b"anon" => anon, b"file" => file, b"kernel" => kernel, b"file_mapped" => file_mapped,
            b"file_dirty" => file_dirty, b"file_writeback" => file_writeback, b"inactive_file" => inactive_file,
            b"active_file" => active_file, b"pgfault" => pgfault, b"pgmajfault" => pgmajfault,
            b"pgscan" => pgscan, b"pgsteal" => pgsteal,
            b"workingset_refault_file" => workingset_refault_file,
            b"workingset_refault_anon" => workingset_refault_anon,
        });
        Ok(stat)
    }
}

/// The keys of cgroup v1 `memory.stat` that are served. `total_` keys include child cgroups.
#[derive(Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's own key names, documented in its cgroup-v1 memory guide")]
pub struct MemoryStatV1 {
    pub cache: Option<u64>,
    pub rss: Option<u64>,
    pub mapped_file: Option<u64>,
    pub dirty: Option<u64>,
    pub writeback: Option<u64>,
    pub swap: Option<u64>,
    pub inactive_file: Option<u64>,
    pub active_file: Option<u64>,
    pub pgfault: Option<u64>,
    pub pgmajfault: Option<u64>,
    pub total_cache: Option<u64>,
    pub total_rss: Option<u64>,
    pub total_mapped_file: Option<u64>,
    pub total_dirty: Option<u64>,
    pub total_writeback: Option<u64>,
    pub total_swap: Option<u64>,
    pub total_inactive_file: Option<u64>,
    pub total_active_file: Option<u64>,
    pub total_pgfault: Option<u64>,
    pub total_pgmajfault: Option<u64>,
}

impl MemoryStatV1 {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut stat = Self::default();
        keyed_fields!(content, stat, {
            b"cache" => cache, b"rss" => rss, b"mapped_file" => mapped_file, b"dirty" => dirty,
            b"writeback" => writeback, b"swap" => swap, b"inactive_file" => inactive_file,
            b"active_file" => active_file, b"pgfault" => pgfault, b"pgmajfault" => pgmajfault,
            b"total_cache" => total_cache, b"total_rss" => total_rss, b"total_mapped_file" => total_mapped_file,
            b"total_dirty" => total_dirty, b"total_writeback" => total_writeback, b"total_swap" => total_swap,
            b"total_inactive_file" => total_inactive_file, b"total_active_file" => total_active_file,
            b"total_pgfault" => total_pgfault, b"total_pgmajfault" => total_pgmajfault,
        });
        Ok(stat)
    }
}

/// `memory.events` of cgroup v2; `oom_kill` also stands in v1's `memory.oom_control` since kernel 4.13.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct MemoryEvents {
    /// Reclaim forced by `memory.high`.
    pub high: Option<u64>,
    /// Usage about to exceed `memory.max`.
    pub max: Option<u64>,
    /// Processes killed.
    pub oom_kill: Option<u64>,
}

impl MemoryEvents {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Result<Self, ParseError> {
        let mut events = Self::default();
        keyed_fields!(content, events, { b"high" => high, b"max" => max, b"oom_kill" => oom_kill });
        Ok(events)
    }
}

/// `cpu.max`: `<quota|max> <period>`, microseconds.
pub fn cpu_max(content: &[u8]) -> Result<(Limit, Option<u64>), ParseError> {
    let mut words = words(content);
    let quota = limit(words.next().unwrap_or_default(), "cpu.max")?;
    let period = words.next().map(|word| number(word).ok_or(ParseError("cpu.max"))).transpose()?;
    Ok((quota, period))
}

/// `cpu.cfs_quota_us`: microseconds, or -1 for none.
pub fn cfs_quota(content: &[u8]) -> Result<Limit, ParseError> {
    match content.trim_ascii() {
        b"-1" => Ok(Limit::Max),
        digits => number(digits).map(Limit::At).ok_or(ParseError("cpu.cfs_quota_us")),
    }
}

/// CPU shares on v1's scale (2 to 262144) from v2's `cpu.weight` (1 to 10000), by the inverse the kubelet's cAdvisor
/// uses. It is not what the pod asked for where the runtime went the other way by another formula.
pub fn shares_from_weight(weight: u64) -> u64 {
    2 + weight.saturating_sub(1).saturating_mul(262_142) / 9999
}

/// One pressure file.
///
/// ```text
/// some avg10=0.00 avg60=0.00 avg300=0.00 total=293391454
/// full avg10=0.00 avg60=0.00 avg300=0.00 total=277111656
/// ```
/// Totals in microseconds. `full` is missing for CPU before kernel 5.13.
pub fn pressure(content: &[u8]) -> Result<Stall, ParseError> {
    let mut stall = Stall { waiting: None, stalled: None };
    for line in lines(content) {
        let mut words = words(line);
        let field = match words.next() {
            Some(b"some") => &mut stall.waiting,
            Some(b"full") => &mut stall.stalled,
            _ => continue,
        };
        let total = words.find_map(|word| word.strip_prefix(b"total="));
        *field = Some(Seconds::from_micros(total.and_then(number).ok_or(ParseError("pressure total"))?));
    }
    Ok(stall)
}

/// How many processes `cgroup.procs` lists, and the first of them. Pid 0 stands for processes of another pid
/// namespace: they count, but cannot be looked up.
pub fn procs(content: &[u8]) -> (u64, Option<u32>) {
    let mut count = 0;
    let mut first = None;
    for pid in pids(content) {
        count += 1;
        first = first.or(pid);
    }
    (count, first)
}

/// The pids of `cgroup.procs`; `None` for one that cannot be looked up.
pub fn pids(content: &[u8]) -> impl Iterator<Item = Option<u32>> {
    lines(content)
        .filter_map(|line| number(line.trim_ascii()))
        .map(|pid| u32::try_from(pid).ok().filter(|pid| *pid != 0))
}

/// A device number `259:8`.
pub fn device_number(text: &[u8]) -> Option<DeviceNumber> {
    let colon = text.iter().position(|byte| *byte == b':')?;
    let part = |digits| number(digits).and_then(|n| u32::try_from(n).ok());
    Some(DeviceNumber { major: part(&text[..colon])?, minor: part(&text[colon + 1..])? })
}

/// `io.stat` of cgroup v2.
///
/// ```text
/// 259:8 rbytes=74526720 wbytes=3789381632 rios=2936 wios=181928 dbytes=0 dios=0
/// ```
/// Kernels before 5.18 may write a device number without keys, or several numbers before the keys of the last one;
/// a number without keys gives no entry. `cost.*` keys appear with the `io.cost` controller, in microseconds.
pub fn io_stat(content: &[u8]) -> Result<Vec<DeviceIo>, ParseError> {
    let mut devices = Vec::new();
    for line in lines(content) {
        let mut current: Option<IoStatKeys> = None;
        for word in words(line) {
            match word.iter().position(|byte| *byte == b'=') {
                None => current = device_number(word).map(IoStatKeys::new),
                Some(equals) => {
                    if let Some(keys) = &mut current {
                        keys.set(&word[..equals], &word[equals + 1..])?;
                    }
                }
            }
        }
        let found = current.and_then(IoStatKeys::finish);
        // The kernel names a device once. Were it named again, one series would stand twice.
        devices.extend(found.filter(|io| !devices.iter().any(|known: &DeviceIo| known.number == io.number)));
    }
    Ok(devices)
}

struct IoStatKeys {
    io: DeviceIo,
    cost: [Option<u64>; 4],
    any: bool,
}

impl IoStatKeys {
    fn new(number: DeviceNumber) -> Self {
        let io = DeviceIo::new(number);
        Self { io, cost: [None; 4], any: false }
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Result<(), ParseError> {
        let parsed = || number(value).ok_or(ParseError("io.stat"));
        match key {
            b"rbytes" => self.io.read_bytes = Some(Bytes(parsed()?)),
            b"wbytes" => self.io.written_bytes = Some(Bytes(parsed()?)),
            b"rios" => self.io.reads = Some(parsed()?),
            b"wios" => self.io.writes = Some(parsed()?),
            b"cost.usage" => self.cost[0] = Some(parsed()?),
            b"cost.wait" => self.cost[1] = Some(parsed()?),
            b"cost.indebt" => self.cost[2] = Some(parsed()?),
            b"cost.indelay" => self.cost[3] = Some(parsed()?),
            _ => return Ok(()),
        }
        self.any = true;
        Ok(())
    }

    fn finish(mut self) -> Option<DeviceIo> {
        if let [Some(usage), Some(wait), Some(indebt), Some(indelay)] = self.cost.map(|c| c.map(Seconds::from_micros)) {
            self.io.cost = Some(IoCost { usage, wait, indebt, indelay });
        }
        self.any.then_some(self.io)
    }
}

/// One entry of a v1 blkio file: `259:0 Read 3448832`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlkioEntry<'a> {
    /// Device.
    pub number: DeviceNumber,
    /// `Read`, `Write`, `Sync`, `Async`, `Discard`, `Total`.
    pub operation: &'a [u8],
    /// Bytes or operations.
    pub value: u64,
}

/// Entries of a v1 blkio file. The closing `Total <n>` line, which has no device, is not an entry.
pub fn blkio(content: &[u8]) -> Result<Vec<BlkioEntry<'_>>, ParseError> {
    let mut entries = Vec::new();
    for line in lines(content) {
        let mut words = words(line);
        let (Some(device), Some(operation), Some(value)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let Some(device) = device_number(device) else { continue };
        let value = number(value).ok_or(ParseError("blkio"))?;
        entries.push(BlkioEntry { number: device, operation, value });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_digits_and_nothing_else() {
        assert_eq!(number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"+1", b" 1", b"1 ", b"18446744073709551616", b"0x1", b"1e3"] {
            assert_eq!(number(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_malformed_known_key_is_named() {
        assert_eq!(CpuStatV2::parse(b"usage_usec 12x\n"), Err(ParseError("usage_usec")));
        assert_eq!(single(b"12\n13\n", "pids.current"), Err(ParseError("pids.current")));
        assert_eq!(MemoryEvents::parse(b"oom_kill \n"), Err(ParseError("oom_kill")));
    }

    #[test]
    fn unknown_and_cut_lines_are_skipped() {
        let stat = CpuStatV2::parse(b"usage_usec 5\ncore_sched.force_idle_usec 7\nnonsense\nuser_us").unwrap();
        assert_eq!(stat, CpuStatV2 { usage_usec: Some(5), ..CpuStatV2::default() });
    }

    #[test]
    fn memory_stat_keys_that_begin_alike_are_kept_apart() {
        let stat =
            MemoryStatV2::parse(b"file 1\nfile_mapped 2\nkernel_stack 3\nkernel 4\nanon_thp 5\nanon 6\n").unwrap();
        let expected =
            MemoryStatV2 { file: Some(1), file_mapped: Some(2), kernel: Some(4), anon: Some(6), ..Default::default() };
        assert_eq!(stat, expected);
    }

    #[test]
    fn cpu_max_has_a_quota_or_none() {
        assert_eq!(cpu_max(b"20000 100010\n"), Ok((Limit::At(20000), Some(100_010))));
        assert_eq!(cpu_max(b"max 100000\n"), Ok((Limit::Max, Some(100_000))));
        assert_eq!(cpu_max(b""), Err(ParseError("cpu.max")));
        assert_eq!(cfs_quota(b"-1\n"), Ok(Limit::Max));
        assert_eq!(cfs_quota(b"-2\n"), Err(ParseError("cpu.cfs_quota_us")));
    }

    #[test]
    fn shares_follow_the_kubelets_formula() {
        for (weight, shares) in [(1, 2), (4, 80), (17, 421), (50, 1286), (79, 2046), (100, 2597), (10_000, 262_144)] {
            assert_eq!(shares_from_weight(weight), shares);
        }
    }

    #[test]
    fn pressure_without_full_has_no_stalled() {
        let stall = pressure(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=134167\n").unwrap();
        assert_eq!(stall, Stall { waiting: Some(Seconds::from_micros(134_167)), stalled: None });
        assert_eq!(pressure(b"some avg10=0.00\n"), Err(ParseError("pressure total")));
    }

    #[test]
    fn io_stat_survives_the_kernels_odd_lines() {
        let text = b"7:7 \n7:6 7:5 7:4 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n253:0 rbytes=9 cost.usage=1 cost.wait=2 cost.indebt=3 cost.indelay=4\n";
        let devices = io_stat(text).unwrap();
        assert_eq!(devices.len(), 2);
        assert_eq!(devices[0].number, DeviceNumber { major: 7, minor: 4 });
        assert_eq!(devices[0].read_bytes, Some(Bytes(1)));
        assert_eq!(devices[0].writes, Some(4));
        assert_eq!(devices[1].cost.as_ref().unwrap().indelay, Seconds::from_micros(4));
        assert_eq!(devices[1].reads, None);
        assert_eq!(io_stat(b"8:0 rbytes=x\n"), Err(ParseError("io.stat")));
    }

    #[test]
    fn a_device_named_twice_is_one_device() {
        let devices = io_stat(b"8:0 rbytes=1\n8:0 rbytes=2\n").unwrap();
        assert_eq!(devices.len(), 1);
        assert_eq!(devices[0].read_bytes, Some(Bytes(1)));
    }

    #[test]
    fn blkio_total_line_is_not_an_entry() {
        assert_eq!(blkio(b"Total 0\n"), Ok(vec![]));
        let entries = blkio(b"259:0 Read 3448832\n259:0 Write 1\nTotal 3448833\n").unwrap();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[0].operation, b"Read");
        assert_eq!(entries[0].value, 3_448_832);
    }

    #[test]
    fn procs_count_foreign_pids_but_do_not_name_them() {
        assert_eq!(procs(b"0\n42\n43\n"), (3, Some(42)));
        assert_eq!(procs(b""), (0, None));
    }
}
