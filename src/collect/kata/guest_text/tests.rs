//! Captured texts against numbers read off them by hand, cut at every place; hostile texts.

use proptest::prelude::*;

use super::*;
use crate::collect::kata::exposition::MAX_LINE_BYTES;
use crate::collect::kata::fixtures::{IDLE, WEB, recorded, unpacked};
use crate::model::guest::{CpuMode, GuestFilesystem, Load};
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Disk, Interface, Traffic};

/// A guest with two vCPUs, a virtio disk and a virtio network device, by a real agent.
fn guest() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/agent-getmetrics-guest.txt.gz"))
}

/// The same guest's numbers as a Go shim prints them, among its own families.
fn go_shim() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/shim-metrics-go-clh.txt.gz"))
}

fn dragonball() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/shim-metrics-dragonball.txt.gz"))
}

/// A real agent outside of a guest, on a machine with eight loop devices and a compressed memory disk.
fn process() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/agent-getmetrics-process.txt.gz"))
}

fn parse(text: &str) -> Parsed {
    Parser::parse(text.as_bytes())
}

#[test]
fn every_fact_of_a_real_guest() {
    let Parsed { guest, report } = Parser::parse(&guest());
    let times: Vec<(CpuMode, Seconds)> = guest.cpu.known().collect();
    // user nice system idle iowait irq softirq steal guest guest_nice, milliseconds
    let millis = [3940, 0, 10_690, 35_430, 40, 0, 380, 0, 0, 0].map(Seconds::from_millis);
    assert_eq!(times, CpuMode::ALL.into_iter().zip(millis).collect::<Vec<_>>());
    // 3940 + 0 + 10690 + 0 + 380 = 15010 ms
    assert_eq!(guest.cpu.usage().unwrap().as_f64(), 15.01);
    assert_eq!(guest.vcpus, Some(2));
    assert_eq!(guest.memory.total, Some(Bytes(491_552_768)));
    assert_eq!(guest.memory.free, Some(Bytes(367_341_568)));
    assert_eq!(guest.memory.available, Some(Bytes(384_745_472)));
    assert_eq!(guest.memory.buffers, Some(Bytes(65_536)));
    assert_eq!(guest.memory.cached, Some(Bytes(88_244_224)));
    assert_eq!(guest.memory.active_file, Some(Bytes(1_212_416)));
    assert_eq!(guest.memory.inactive_file, Some(Bytes(17_321_984)));
    assert_eq!(guest.memory.anon_pages, Some(Bytes(6_008_832)));
    assert_eq!(guest.memory.mapped, Some(Bytes(40_767_488)));
    assert_eq!(guest.memory.shmem, Some(Bytes(69_775_360)));
    assert_eq!(guest.memory.dirty, Some(Bytes(28_672)));
    assert_eq!(guest.memory.writeback, Some(Bytes(0)));
    assert_eq!(guest.memory.slab, Some(Bytes(19_369_984)));
    assert_eq!(guest.memory.slab_reclaimable, Some(Bytes(11_526_144)));
    assert_eq!(guest.memory.slab_unreclaimable, Some(Bytes(7_843_840)));
    assert_eq!(guest.memory.kernel_stack, Some(Bytes(1_081_344)));
    assert_eq!(guest.memory.page_tables, Some(Bytes(327_680)));
    assert_eq!(guest.memory.per_cpu, Some(Bytes(548_864)));
    assert_eq!((guest.memory.swap_total, guest.memory.swap_free), (Some(Bytes(0)), Some(Bytes(0))));
    assert_eq!(guest.memory.swap_cached, Some(Bytes(0)));
    assert_eq!(guest.memory.committed, Some(Bytes(92_094_464)));
    assert_eq!((guest.memory.hugepages_total, guest.memory.hugepages_free), (Some(0), Some(0)));
    assert_eq!(guest.memory.hugepage_size, Some(Bytes(2_097_152)));
    let load = Load {
        one: Some(0.379_999_995_231_628_4),
        five: Some(0.100_000_001_490_116_12),
        fifteen: Some(0.029_999_999_329_447_746),
    };
    assert_eq!(guest.load, load);
    assert_eq!((guest.runnable_tasks, guest.threads), (Some(3), Some(65)));
    let traffic = |bytes, packets| Traffic { bytes: Bytes(bytes), packets, errors: 0, dropped: 0 };
    assert_eq!(
        guest.interfaces,
        [Interface { name: "eth0".into(), receive: traffic(468, 5), transmit: traffic(938, 11) }]
    );
    let vda = Disk {
        device: "/dev/vda".into(),
        reads: 39,
        reads_merged: 18,
        sectors_read: 3324,
        read_time: Seconds::from_millis(141),
        writes: 20,
        writes_merged: 11,
        sectors_written: 32_798,
        write_time: Seconds::from_millis(183),
        in_progress: 0,
        io_time: Seconds::from_millis(260),
        weighted_io_time: Seconds::from_millis(333),
    };
    assert_eq!(guest.disks, [vda]);
    let data = GuestFilesystem {
        mount: "/data".into(),
        device: "vda".into(),
        size: Some(Bytes(241_081_344)),
        used: Some(Bytes(18_779_136)),
        free: Some(Bytes(222_302_208)),
        inodes: Some(65_536),
        inodes_used: Some(30),
        inodes_free: Some(65_506),
    };
    assert_eq!(guest.filesystems, [data]);
    assert_eq!((guest.page_faults, guest.major_page_faults, guest.oom_kills), (Some(4821), Some(15), Some(0)));
    assert_eq!(guest.agent_scrapes, Some(2));
    assert!(report.is_clean(), "{report:?}");
}

/// Go sorts its own families first, shuffles the agent's, and prints `4.91552768e+08` for 491552768.
#[test]
fn a_go_shim_says_the_same_in_another_order_and_spelling() {
    let direct = Parser::parse(&guest());
    let through_shim = Parser::parse(&go_shim());
    assert_eq!(through_shim.guest, direct.guest);
    assert!(through_shim.report.is_clean());
    assert!(through_shim.report.samples > direct.report.samples);
}

#[test]
fn partitions_loops_and_memory_disks_are_left_out() {
    let guest = Parser::parse(&dragonball()).guest;
    let disks: Vec<(&str, u64)> = guest.disks.iter().map(|disk| (disk.device.as_str(), disk.reads)).collect();
    // pmem0p1 (2144 reads) and vda1 (3055) are parts of these.
    assert_eq!(disks, [("/dev/pmem0", 2201), ("/dev/vda", 3120)]);
    assert_eq!(guest.interfaces[0].receive.dropped, 2);
    // 80030 + 20 + 19980 + 0 + 450 = 100480 ms
    assert_eq!(guest.cpu.usage(), Some(Seconds::from_millis(100_480)));
    assert_eq!(guest.filesystems[0].mount, "/run/kata-containers/sandbox/storage/L2Rldi92ZGM");

    let Parsed { guest, report } = Parser::parse(&process());
    let disks: Vec<&str> = guest.disks.iter().map(|disk| disk.device.as_str()).collect();
    assert_eq!(disks, ["/dev/vda"], "not loop0 to loop7 and zram0");
    assert!(report.is_clean(), "{report:?}");
}

#[test]
fn mapped_devices_repeat_the_disk_below_unless_there_is_none() {
    let all = |disk: &str| -> String {
        let items = "reads merged sectors_read time_reading writes writes_merged sectors_written time_writing in_progress \
             time_in_progress weighted_time_in_progress";
        let line = |item| format!("kata_guest_diskstat{{disk=\"{disk}\",item=\"{item}\"}} 1\n");
        items.split_whitespace().map(line).collect()
    };
    let disks =
        |text: String| -> Vec<String> { parse(&text).guest.disks.into_iter().map(|disk| disk.device).collect() };
    assert_eq!(disks(all("dm-0") + &all("sda")), ["/dev/sda"]);
    assert_eq!(disks(all("dm-0")), ["/dev/dm-0"]);
    // A partition stays one when its disk's numbers cannot be used.
    let broken = "kata_guest_diskstat{disk=\"vda\",item=\"reads\"} NaN\n";
    assert_eq!(disks(all("vda1") + &all("vda") + broken), Vec::<String>::new());
}

/// Both Kata pods of the recorded node at both moments, by shim and by agent.
#[test]
fn recorded_guests_agree_between_shim_and_agent_and_counters_only_rise() {
    let files = recorded("/kata/");
    let shim_of = |moment: &str, sandbox: &str| {
        let http = &files[&format!("{moment}/kata/{sandbox}/metrics.http")];
        let body = http.windows(4).position(|end| end == b"\r\n\r\n").unwrap() + 4;
        Parser::parse(&http[body..])
    };
    for sandbox in [IDLE, WEB] {
        let [earlier, later] = ["t0", "t1"].map(|moment| {
            let shim = shim_of(moment, sandbox);
            let agent = Parser::parse(&files[&format!("{moment}/kata/{sandbox}/agent/GetMetrics.txt")]);
            for parsed in [&shim, &agent] {
                assert!(parsed.report.is_clean(), "{:?}", parsed.report);
                assert_eq!(parsed.guest.vcpus, Some(1));
                assert_eq!(parsed.guest.interfaces.len(), 1);
                assert!(parsed.guest.disks.is_empty(), "a virtio-fs root is no disk");
            }
            assert_eq!(shim.guest.memory.total, agent.guest.memory.total);
            shim.guest
        });
        assert!(later.cpu.usage().unwrap().as_f64() > earlier.cpu.usage().unwrap().as_f64());
        assert!(later.interfaces[0].transmit.bytes >= earlier.interfaces[0].transmit.bytes);
        assert!(later.page_faults >= earlier.page_faults);
        assert!(later.agent_scrapes > earlier.agent_scrapes);
    }
    let guest = shim_of("t0", WEB).guest;
    // 54250 + 0 + 19980 + 0 + 980 = 75210 ms; 30570 ms of steal are not the guest's use.
    assert_eq!(guest.cpu.usage(), Some(Seconds::from_millis(75_210)));
    assert_eq!(guest.cpu.time(CpuMode::Steal), Some(Seconds::from_millis(30_570)));
    let eth0 = &guest.interfaces[0];
    assert_eq!((eth0.receive.bytes, eth0.transmit.bytes), (Bytes(83_968), Bytes(3_885_488)));
}

fn fed_in(text: &[u8], size: usize) -> Parsed {
    let mut parser = Parser::new();
    text.chunks(size).for_each(|piece| parser.feed(piece));
    parser.finish()
}

/// Every family once, with labels in both orders, escapes, garbage and a line that is too long.
fn short_text() -> Vec<u8> {
    let mut text = b"# HELP kata_guest_load Guest system load.\n\
        kata_guest_load{item=\"load1\"} 0.5\n\
        \n\
        kata_guest_cpu_time{item=\"user\",cpu=\"total\"} 1.25e+03\n\
        kata_guest_cpu_time{cpu=\"3\",item=\"user\"} 7\n\
        kata_guest_meminfo{item=\"mem_total\"} 4.91552768e+08\r\n\
        kata_guest_filesystem_bytes{mount=\"/a,}\\\"\\\\\\n{\",device=\"vda\",item=\"used\"} 9\n\
        go_gc_duration_seconds{quantile=\"0\"} 3.1e-05\n\
        <html>\n\
        kata_guest_vm_stat{item=\"oom_kill\"} +Inf\n\
        kata_guest_tasks{item=\"\xff\"} 1\n"
        .to_vec();
    text.extend(std::iter::repeat_n(b'x', MAX_LINE_BYTES + 1));
    text.extend(b"\nkata_guest_vm_stat{item=\"pgfault\"} 12 1700000000000\nkata_agent_scrape_count 4");
    text
}

#[test]
fn any_cut_gives_the_same_facts() {
    let whole = Parser::parse(&short_text());
    assert_eq!(whole.guest.load.one, Some(0.5));
    assert_eq!(whole.guest.cpu.time(CpuMode::User), Some(Seconds::from_millis(1250)));
    assert_eq!(whole.guest.vcpus, Some(1));
    assert_eq!(whole.guest.memory.total, Some(Bytes(491_552_768)));
    assert_eq!(whole.guest.filesystems[0].mount, "/a,}\"\\\n{");
    assert_eq!(whole.guest.filesystems[0].used, Some(Bytes(9)));
    assert_eq!((whole.guest.page_faults, whole.guest.oom_kills), (Some(12), None));
    assert_eq!(whole.guest.agent_scrapes, None, "its line has no end: it may have been 42");
    // <html>, +Inf, not UTF-8, no line feed at the end.
    let report = Report { samples: 11, malformed: 4, overlong: 1, ..Report::default() };
    assert_eq!(whole.report, report);
    let text = short_text();
    let short = &text[..text.iter().position(|byte| *byte == 0xff).unwrap()];
    for size in 1..=short.len() {
        assert_eq!(fed_in(short, size), Parser::parse(short), "pieces of {size}");
    }
    for size in (1..200).chain([4096, 8191, 8192, 8193, text.len()]) {
        assert_eq!(fed_in(&text, size), whole, "pieces of {size}");
    }
}

#[test]
fn a_whole_shim_text_may_be_cut_anywhere() {
    let text = go_shim();
    let whole = Parser::parse(&text);
    // In two pieces at every 7th byte: 7 is coprime to any regular line length, so every place in a line is met.
    for cut in (0..text.len()).step_by(7) {
        let mut parser = Parser::new();
        parser.feed(&text[..cut]);
        parser.feed(&text[cut..]);
        assert_eq!(parser.finish(), whole, "cut at {cut}");
    }
    for size in [1, 2, 3, 61, 1460, 4096, 16_384] {
        assert_eq!(fed_in(&text, size), whole, "pieces of {size}");
    }
}

#[test]
fn a_malformed_known_value_costs_that_fact_alone() {
    let Parsed { guest, report } = parse(
        "kata_guest_meminfo{item=\"mem_total\"} -1\n\
         kata_guest_meminfo{item=\"mem_free\"} NaN\n\
         kata_guest_meminfo{item=\"buffers\"} 12\n\
         kata_guest_meminfo{item=\"active\"} what\n\
         kata_guest_cpu_time{cpu=\"total\",item=\"user\"} 0.5\n\
         kata_guest_load{item=\"load5\"} NaN\n\
         kata_guest_load{item=\"load15\"} 2\n\
         kata_guest_load 3\n",
    );
    assert_eq!((guest.memory.total, guest.memory.free, guest.memory.buffers), (None, None, Some(Bytes(12))));
    assert_eq!(guest.cpu.usage(), None);
    assert_eq!(guest.load, Load { one: None, five: None, fifteen: Some(2.0) });
    // -1, NaN, 0.5, NaN, no item. Nobody asked for `active`.
    assert_eq!(report, Report { samples: 8, malformed: 5, ..Report::default() });
}

#[test]
fn available_memory_of_zero_is_unknown_and_other_zeros_are_true() {
    let guest = parse("kata_guest_meminfo{item=\"mem_available\"} 0\nkata_guest_meminfo{item=\"swap_free\"} 0\n").guest;
    assert_eq!((guest.memory.available, guest.memory.swap_free), (None, Some(Bytes(0))));
}

#[test]
fn an_interface_without_all_its_counters_is_left_out() {
    let items = ["recv_bytes", "recv_packets", "recv_errs", "recv_drop", "sent_bytes", "sent_packets", "sent_errs"];
    let mut text = String::new();
    for (index, item) in items.iter().enumerate() {
        text += &format!("kata_guest_netdev_stat{{interface=\"eth0\",item=\"{item}\"}} {index}\n");
        text += &format!("kata_guest_netdev_stat{{interface=\"lo\",item=\"{item}\"}} {index}\n");
    }
    let without = parse(&text);
    assert_eq!((without.guest.interfaces.len(), without.report.incomplete), (0, 1));
    text += "kata_guest_netdev_stat{interface=\"eth0\",item=\"sent_drop\"} 7\n";
    let eth0 = &parse(&text).guest.interfaces[0];
    assert_eq!(eth0.receive, Traffic { bytes: Bytes(0), packets: 1, errors: 2, dropped: 3 });
    assert_eq!(eth0.transmit, Traffic { bytes: Bytes(4), packets: 5, errors: 6, dropped: 7 });
}

#[test]
fn names_that_only_begin_like_known_ones_are_strangers() {
    let Parsed { guest, report } = parse(
        "kata_guest_load_x{item=\"load1\"} 1\nkata_guest_loa{item=\"load1\"} 1\nkata_guest_loa\nkata_\n\
         kata_guest_vm_stat_total{item=\"pgfault\"} 1\nkata_shim_threads 4\nkata_agent_scrape_count_total 9\n\
         kata_hypervisor_netdev{interface=\"tap0_kata\",item=\"recv_bytes\"} 1\n",
    );
    assert_eq!(guest, Guest::default());
    assert_eq!(report, Report { samples: 8, ..Report::default() });
}

#[test]
fn counters_that_are_not_read_are_not_looked_at() {
    let Parsed { guest, report } = parse(
        "kata_guest_vm_stat{item=\"nr_dirty\"} what\nkata_guest_vm_stat{item=\"pgfault\"} 3\n\
         kata_guest_vm_stat{item=\"pgfault_x\"} 4\nkata_guest_vm_stat{item=\"oom_kill\"} what\n",
    );
    assert_eq!((guest.page_faults, guest.oom_kills), (Some(3), None));
    assert_eq!(report, Report { samples: 4, malformed: 1, ..Report::default() });
}

#[test]
fn a_text_without_the_agents_part_says_so() {
    let text = String::from_utf8(go_shim()).unwrap();
    let only_shim: String = text
        .lines()
        .filter(|line| !line.contains("kata_agent_") && !line.contains("kata_guest_"))
        .fold(String::new(), |mut kept, line| {
            kept.push_str(line);
            kept.push('\n');
            kept
        });
    let parsed = parse(&only_shim);
    assert_eq!(parsed.guest, Guest::default());
    assert!(parsed.report.samples > 100);
}

#[test]
fn floods_are_cut_and_counted() {
    let many: String =
        (0..1000).map(|n| format!("kata_guest_netdev_stat{{interface=\"e{n}\",item=\"recv_bytes\"}} 1\n")).collect();
    let report = parse(&many).report;
    assert_eq!(report.over_devices, 1000 - 128);
    assert_eq!(report.incomplete, 128);

    let long = format!("kata_guest_diskstat{{disk=\"{}\",item=\"reads\"}} 1\n", "d".repeat(1025));
    assert_eq!(parse(&long).report, Report { samples: 1, over_devices: 1, ..Report::default() });

    let endless = "kata_agent_scrape_count 1\n".repeat(20_010);
    let parsed = parse(&endless);
    // Ten lines of 26 bytes are not looked at.
    assert_eq!(parsed.report, Report { samples: 20_000, ignored_bytes: 260, ..Report::default() });
    assert_eq!(fed_in(endless.as_bytes(), 1000), parsed);
    assert_eq!(fed_in(endless.as_bytes(), 13), parsed);

    let one_line = vec![b'k'; 1 << 20];
    let mut parser = Parser::new();
    one_line.chunks(4096).for_each(|piece| parser.feed(piece));
    assert!(parser.lines.held_bytes() <= 2 * MAX_LINE_BYTES);
    assert_eq!(parser.finish().report, Report { overlong: 1, ..Report::default() });
}

/// Pieces of real lines, so that random texts get past the first byte.
fn fragment() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("kata_guest_cpu_time{cpu=\"total\",item=\"user\"} ".to_owned()),
        Just("kata_guest_netdev_stat{interface=\"".to_owned()),
        Just("kata_guest_diskstat{".to_owned()),
        Just("disk=\"".to_owned()),
        Just("item=\"recv_bytes\"".to_owned()),
        Just("kata_guest_filesystem_bytes{device=\"a\",mount=\"".to_owned()),
        Just("\",".to_owned()),
        Just("\"} ".to_owned()),
        Just("\n".to_owned()),
        Just("\\".to_owned()),
        Just("1e3\n".to_owned()),
        "[ -~\n]{0,12}",
        ".{0,6}",
    ]
}

proptest! {
    #[test]
    fn any_bytes_in_any_pieces_never_panic(text in proptest::collection::vec(any::<u8>(), 0..600), size in 1usize..64) {
        prop_assert_eq!(fed_in(&text, size), Parser::parse(&text));
    }

    #[test]
    fn any_fragments_in_any_pieces_never_panic(parts in proptest::collection::vec(fragment(), 0..40), size in 1usize..64) {
        let text = parts.concat();
        prop_assert_eq!(fed_in(text.as_bytes(), size), Parser::parse(text.as_bytes()));
    }

    #[test]
    fn any_name_comes_back_as_it_was(name in "[^\u{0}]{1,40}") {
        prop_assume!(name != "lo");
        let escaped = name.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let text = format!("kata_guest_filesystem_bytes{{item=\"used\",mount=\"{escaped}\",device=\"{escaped}\"}} 1\n");
        let parsed = parse(&text);
        prop_assert_eq!(&parsed.guest.filesystems[0].mount, &name);
        prop_assert_eq!(&parsed.guest.filesystems[0].device, &name);
    }

    #[test]
    fn the_order_of_lines_does_not_matter(seed in any::<u64>()) {
        let text = String::from_utf8(guest()).unwrap();
        let mut lines: Vec<&str> = text.lines().collect();
        // A shuffle of its own: the text has each sample once, so any order says the same.
        let mut state = seed | 1;
        for index in (1..lines.len()).rev() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            lines.swap(index, usize::try_from(state >> 33).unwrap() % (index + 1));
        }
        let shuffled = lines.join("\n") + "\n";
        prop_assert_eq!(parse(&shuffled).guest, parse(&text).guest);
    }
}
