//! Interfaces and CPUs as sysfs and `/proc/cpuinfo` describe them, read rarely where they hardly ever change.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::collect::exclude::Exclude;
use crate::model::node::{CPU_LABELS, HostInterface, InterfaceInfo, Processor, SETTINGS};

/// Longest text of a file that is taken.
const LONGEST: usize = 256;

/// No file of sysfs is longer.
const PAGE: usize = 4096;

/// A file's one line; `None` when it is absent or does not read: `speed` of an interface that is down gives EINVAL.
fn line(path: &Path) -> Option<String> {
    let mut page = [0; PAGE];
    let length = File::open(path).ok()?.read_at(&mut page, 0).ok()?;
    let line = std::str::from_utf8(page.get(..length)?).ok()?.trim_ascii();
    Some(line[..line.floor_char_boundary(LONGEST)].to_owned())
}

/// A number, hexadecimal if it begins with `0x`.
fn number(path: &Path) -> Option<u64> {
    let line = line(path)?;
    match line.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => line.parse().ok(),
    }
}

/// Adds what sysfs knows of the interfaces, and those that only sysfs knows.
pub(super) fn describe(sys: &Path, interfaces: &mut Vec<HostInterface>, exclude: &Exclude) {
    let root = sys.join("class/net");
    for entry in std::fs::read_dir(&root).into_iter().flatten().flatten() {
        let Ok(device) = entry.file_name().into_string() else { continue };
        let dir = entry.path();
        // Beside interfaces there is a file, `bonding_masters`.
        if exclude.has(&device) || !dir.join("ifindex").exists() {
            continue;
        }
        let at = interfaces.iter().position(|known| known.device == device).unwrap_or_else(|| {
            interfaces.push(HostInterface { device, ..HostInterface::default() });
            interfaces.len() - 1
        });
        describe_one(&dir, &mut interfaces[at]);
    }
}

fn describe_one(dir: &Path, interface: &mut HostInterface) {
    interface.settings = SETTINGS.map(|file| number(&dir.join(file)));
    interface.carrier_changes =
        ["carrier_changes", "carrier_up_count", "carrier_down_count"].map(|file| number(&dir.join(file)));
    // Megabits per second; -1, which is no number here, where nobody knows.
    interface.speed = number(&dir.join("speed")).map(|megabits| megabits.saturating_mul(1_000_000));
    interface.receive_nohandler = number(&dir.join("statistics/rx_nohandler"));
    let text = |file: &str| line(&dir.join(file)).unwrap_or_default();
    interface.info = Some(InterfaceInfo {
        address: text("address"),
        broadcast: text("broadcast"),
        duplex: text("duplex"),
        ifalias: text("ifalias"),
        operstate: text("operstate"),
    });
}

/// What `/proc/cpuinfo` calls the labels of `node_cpu_info`.
const CPU_KEYS: [&str; CPU_LABELS.len()] = [
    "cache size",
    "core id",
    "processor",
    "cpu family",
    "microcode",
    "model",
    "model name",
    "physical id",
    "stepping",
    "vendor_id",
];

/// `/proc/cpuinfo`: blocks of `key : value` lines, one for each CPU.
pub(super) fn processors(cpuinfo: &[u8]) -> Vec<Processor> {
    let text = String::from_utf8_lossy(cpuinfo);
    let blocks = text.split("\n\n").filter_map(|block| {
        let mut labels: [String; CPU_LABELS.len()] = Default::default();
        for line in block.lines() {
            let Some((key, value)) = line.split_once(':') else { continue };
            if let Some(at) = CPU_KEYS.iter().position(|known| *known == key.trim_ascii()) {
                let value = value.trim_ascii();
                value[..value.floor_char_boundary(LONGEST)].clone_into(&mut labels[at]);
            }
        }
        let cpu = labels[2].clone();
        let is_number = !cpu.is_empty() && cpu.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| Processor { cpu, labels, ..Processor::default() })
    });
    blocks.collect()
}

/// Adds the clocks, which are in kilohertz, where the kernel governs them.
pub(super) fn clock(sys: &Path, processors: &mut [Processor]) {
    for processor in processors {
        let dir = sys.join(format!("devices/system/cpu/cpu{}/cpufreq", processor.cpu));
        let hertz = |file: &str| number(&dir.join(file)).map(|kilohertz| kilohertz.saturating_mul(1000));
        processor.hardware_hertz = ["cpuinfo_cur_freq", "cpuinfo_min_freq", "cpuinfo_max_freq"].map(hertz);
        processor.scaling_hertz = ["scaling_cur_freq", "scaling_min_freq", "scaling_max_freq"].map(hertz);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn interfaces_are_described_and_what_is_unknown_is_absent() {
        let sys = tempfile::tempdir().unwrap();
        let dir = sys.path().join("class/net/eth0");
        fs::create_dir_all(dir.join("statistics")).unwrap();
        fs::write(sys.path().join("class/net/bonding_masters"), "\n").unwrap();
        for (file, content) in
            [("ifindex", "4\n"), ("flags", "0x1003\n"), ("speed", "-1\n"), ("operstate", "up\n"), ("mtu", "1400\n")]
        {
            fs::write(dir.join(file), content).unwrap();
        }
        let mut interfaces = vec![HostInterface { device: "lo".to_owned(), ..HostInterface::default() }];
        describe(sys.path(), &mut interfaces, &Exclude::default());
        assert_eq!(interfaces.len(), 2);
        assert_eq!(interfaces[0].info, None);
        let of = |name: &str| interfaces[1].settings[SETTINGS.iter().position(|setting| *setting == name).unwrap()];
        assert_eq!((of("flags"), of("mtu"), of("carrier")), (Some(4099), Some(1400), None));
        assert_eq!(interfaces[1].speed, None);
        assert_eq!(interfaces[1].info.as_ref().unwrap().operstate, "up");
    }

    #[test]
    fn processors_are_blocks_with_a_number() {
        let text = b"processor\t: 0\nvendor_id\t: GenuineIntel\nmodel\t\t: 85\nmodel name\t: Intel(R) Xeon(R): x\n\n\
                     processor\t: 1\ncore id\t\t: 1\n\nHardware\t: a board\n";
        let found = processors(text);
        assert_eq!(found.iter().map(|processor| processor.cpu.as_str()).collect::<Vec<_>>(), ["0", "1"]);
        let of = |at: usize, name: &str| {
            found[at].labels[CPU_LABELS.iter().position(|label| *label == name).unwrap()].as_str()
        };
        assert_eq!(
            (of(0, "vendor"), of(0, "model"), of(0, "model_name")),
            ("GenuineIntel", "85", "Intel(R) Xeon(R): x")
        );
        assert_eq!((of(1, "core"), of(1, "vendor")), ("1", ""));
    }

    #[test]
    fn clocks_are_in_hertz() {
        let sys = tempfile::tempdir().unwrap();
        let dir = sys.path().join("devices/system/cpu/cpu1/cpufreq");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("scaling_cur_freq"), "2400000\n").unwrap();
        let mut found = processors(b"processor: 0\n\nprocessor: 1\n");
        clock(sys.path(), &mut found);
        assert_eq!(found[0].scaling_hertz, [None; 3]);
        assert_eq!(found[1].scaling_hertz, [Some(2_400_000_000), None, None]);
    }
}
