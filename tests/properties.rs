//! What holds for every input: parsers give a value or an error and never panic, label values come out as they went
//! in, and a cgroup's path tells pod and container for every driver and runtime.

use std::sync::Arc;

use kata_pulse::collect::cgroup::parse;
use kata_pulse::collect::exclude::Exclude;
use kata_pulse::collect::network::net_dev;
use kata_pulse::discover::cgroup_path::{Class, Leaf, classify};
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::negotiate;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::identity::{LabelBlock, Labels, MAX_LABEL_BYTES, bounded, escape_label_value};
use kata_pulse::model::inventory::{Kind, Network, Subject};
use kata_pulse::model::snapshot::{OomKills, Row, Snapshot};
use kata_pulse::model::units::Bytes;
use kata_pulse::model::usage::{DeviceIo, DeviceNumber, Filesystem, Hugetlb, Interface, Memory, Traffic, Usage};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

mod support;

use support::command::kata_pulse;
use support::exposition::Page;
use support::host::Host;

/// Words that the parsers know, to get past their first look.
const WORDS: [&str; 40] = [
    "usage_usec",
    "user",
    "system",
    "nr_periods",
    "nr_throttled",
    "throttled_usec",
    "throttled_time",
    "anon",
    "file",
    "kernel",
    "inactive_file",
    "total_rss",
    "pgfault",
    "oom_kill",
    "high",
    "max",
    "some",
    "full",
    "total=",
    "avg10=0.00",
    "rbytes=",
    "wios=",
    "cost.usage=",
    "259:8",
    "7:7",
    ":",
    "-1",
    "0",
    "18446744073709551615",
    "18446744073709551616",
    "Read",
    "Write",
    "Discard",
    "Total",
    "eth0:",
    "lo:",
    "tap0_kata:",
    "gzip",
    ";q=",
    "text/plain;version=0.0.4",
];

/// Any bytes, and bytes that look like what a kernel or a client says, put together wrongly.
fn input() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        4 => select(&WORDS[..]).prop_map(|word| word.as_bytes().to_vec()),
        2 => any::<u64>().prop_map(|number| number.to_string().into_bytes()),
        1 => vec(any::<u8>(), 0..6),
    ];
    let separator = select(&[" ", "\n", " ", "\n", "", "  ", "\t", "\r\n", ",", "=", "\0"][..]);
    let text = vec((word, separator), 0..60).prop_map(|words| {
        words.into_iter().flat_map(|(word, separator)| [word, separator.as_bytes().to_vec()].concat()).collect()
    });
    prop_oneof![1 => vec(any::<u8>(), 0..600), 3 => text]
}

/// A label value: plain, with everything that must be escaped, of any characters, and up to twice the longest served.
fn label() -> impl Strategy<Value = String> {
    let odd =
        select(&['"', '\\', '\n', '\r', '\t', '\0', '{', '}', ',', '=', ' ', '#', 'n', 'é', '\u{2028}', '🦀'][..]);
    let character = prop_oneof![3 => odd, 1 => any::<char>()];
    let short = vec(character.clone(), 0..40).prop_map(String::from_iter);
    let long = (vec(character, 1..40), 1..400usize).prop_map(|(some, times)| String::from_iter(some).repeat(times));
    prop_oneof![2 => "[a-z0-9./:-]{0,60}", 4 => short, 1 => long]
}

fn labels() -> impl Strategy<Value = Labels> {
    (label(), label(), label(), label(), label(), label())
        .prop_map(|(container, id, image, name, namespace, pod)| Labels { container, id, image, name, namespace, pod })
}

/// What of a value is served: as many whole characters as fit.
fn served(value: &str) -> String {
    let mut served = String::new();
    for character in value.chars() {
        if served.len() + character.len_utf8() > MAX_LABEL_BYTES {
            break;
        }
        served.push(character);
    }
    served
}

/// A row with samples of every kind that has a label of text beside the six.
fn row(labels: Labels, own: &str) -> Row {
    let traffic = Traffic { bytes: Bytes(1), packets: 2, errors: 3, dropped: 4 };
    let subject = Subject {
        kind: Kind::Container,
        block: LabelBlock::render(&labels),
        labels,
        cgroup: None,
        in_guest: false,
        sandbox: None,
        container: None,
        spec: None,
        started_at: None,
        created_at: None,
        network: Network::None,
    };
    let usage = Usage {
        memory: Some(Memory { usage: Some(Bytes(17)), page_faults: Some(5), ..Memory::default() }),
        network: vec![Interface { name: own.to_owned(), receive: traffic, transmit: traffic }],
        io: vec![DeviceIo {
            number: DeviceNumber { major: 259, minor: 0 },
            // A blank one would be named by its number.
            device: format!("/{own}"),
            read_bytes: Some(Bytes(6)),
            written_bytes: None,
            reads: None,
            writes: None,
            other_bytes: Vec::new(),
            cost: None,
        }],
        hugetlb: vec![Hugetlb { page_size: own.to_owned(), usage: Bytes(8), max_usage: None, failcnt: None }],
        filesystems: vec![Filesystem {
            device: own.to_owned(),
            usage: Some(Bytes(9)),
            limit: None,
            inodes: None,
            inodes_free: None,
        }],
        ..Usage::default()
    };
    Row { subject: Arc::new(subject), usage }
}

fn page(snapshot: &Snapshot) -> Page {
    let mut text = Text::new(Format::Prometheus, 0);
    walk(snapshot, &View::All, Profile::All, &mut text);
    let body = String::from_utf8(text.finish()).expect("UTF-8");
    Page::parse(&body).unwrap_or_else(|fault| panic!("{fault}\n{body}"))
}

/// Where the kubelet and a runtime put a container, in the words of the driver.
#[derive(Clone, Debug)]
struct Place {
    path: String,
    leaf: &'static str,
}

/// Every driver, QoS class, runtime and kind of nesting.
fn place(uid: String) -> impl Strategy<Value = Place> {
    let cgroupfs = (
        select(&["", "/docker/NODE", "/docker/NODE/kubelet", "/custom/root", "/system.slice/docker-NODE.scope"][..]),
        select(&["", "/burstable", "/besteffort"][..]),
        select(&["ID", "crio-ID"][..]),
    );
    let systemd = (
        select(&["", "/system.slice/docker-NODE.scope", "/kubelet.slice", "/docker/NODE"][..]),
        select(&["", "-burstable", "-besteffort"][..]),
        select(
            &["cri-containerd-ID.scope", "crio-ID.scope", "docker-ID.scope", "libpod-ID.scope", "crio-ID", "ID"][..],
        ),
    );
    let dashed = uid.clone();
    let underlined = uid.replace('-', "_");
    prop_oneof![
        cgroupfs.prop_map(move |(before, class, leaf)| Place {
            path: format!("{before}/kubepods{class}/pod{dashed}/{leaf}"),
            leaf,
        }),
        systemd.prop_map(move |(before, class, leaf)| {
            // systemd puts the name of a slice's parent before its own; kind has the kubelet in a slice.
            let stem = if before == "/kubelet.slice" { "kubelet-kubepods" } else { "kubepods" };
            let group = if class.is_empty() { String::new() } else { format!("/{stem}{class}.slice") };
            Place { path: format!("{before}/{stem}.slice{group}/{stem}{class}-pod{underlined}.slice/{leaf}"), leaf }
        }),
    ]
}

/// A pod's uid as the API server makes it, or the hash of a static pod's configuration.
fn uid() -> impl Strategy<Value = String> {
    prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}", "[0-9a-f]{32}"]
}

/// The classes of a path's components, from the root down.
fn classes(path: &str) -> Vec<Class> {
    path.split('/').filter(|name| !name.is_empty()).fold(Vec::new(), |mut classes, name| {
        let class = classify(classes.last().unwrap_or(&Class::Other), name);
        classes.push(class);
        classes
    })
}

/// Files of a container on cgroup v2, and of the node, whose content is made up.
const V2_FILES: [&str; 18] = [
    "sys/fs/cgroup/cpu.stat",
    "sys/fs/cgroup/memory.stat",
    "CONTAINER/cgroup.procs",
    "CONTAINER/cpu.max",
    "CONTAINER/cpu.pressure",
    "CONTAINER/cpu.stat",
    "CONTAINER/cpu.weight",
    "CONTAINER/hugetlb.2MB.current",
    "CONTAINER/io.stat",
    "CONTAINER/memory.events",
    "CONTAINER/memory.max",
    "CONTAINER/memory.stat",
    "CONTAINER/memory.swap.current",
    "CONTAINER/pids.current",
    "proc/1/mountinfo",
    "proc/1/net/dev",
    "proc/diskstats",
    "proc/meminfo",
];

/// The same on cgroup v1.
const V1_FILES: [&str; 12] = [
    "MOUNT/blkio/CONTAINER/blkio.bfq.io_service_bytes_recursive",
    "MOUNT/blkio/CONTAINER/blkio.throttle.io_service_bytes",
    "MOUNT/blkio/CONTAINER/blkio.throttle.io_serviced",
    "MOUNT/cpu,cpuacct/CONTAINER/cpu.cfs_quota_us",
    "MOUNT/cpu,cpuacct/CONTAINER/cpu.stat",
    "MOUNT/cpu,cpuacct/CONTAINER/cpuacct.stat",
    "MOUNT/cpu,cpuacct/CONTAINER/cpuacct.usage",
    "MOUNT/memory/CONTAINER/memory.limit_in_bytes",
    "MOUNT/memory/CONTAINER/memory.oom_control",
    "MOUNT/memory/CONTAINER/memory.stat",
    "MOUNT/memory/CONTAINER/memory.usage_in_bytes",
    "MOUNT/pids/CONTAINER/pids.max",
];

/// Content that is well formed as often as not, so that wild numbers get as far as the sums.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let number = || prop_oneof![any::<u64>(), Just(u64::MAX), 0..3u64];
    let keyed = vec((select(&WORDS[..15]), number()), 0..12)
        .prop_map(|lines| lines.into_iter().flat_map(|(key, value)| format!("{key} {value}\n").into_bytes()).collect());
    let v2_device = (0..2u32, number(), number()).prop_map(|(minor, bytes, count)| {
        format!("8:{minor} rbytes={bytes} wbytes={bytes} rios={count} wios={count}\n")
    });
    let v1_device = (0..2u32, select(&["Read", "Write", "Sync", "Total"][..]), number())
        .prop_map(|(minor, operation, value)| format!("8:{minor} {operation} {value}\n"));
    let devices = prop_oneof![vec(v2_device, 0..4), vec(v1_device, 0..8)];
    let devices = devices.prop_map(|lines: Vec<String>| lines.concat().into_bytes());
    let single = number().prop_map(|number| format!("{number}\n").into_bytes());
    prop_oneof![2 => input(), 3 => keyed, 2 => devices, 2 => single]
}

/// Collects on the node with these contents, or without the file, and gives the page.
fn page_of(host: &Host, names: &[&str], contents: Vec<Option<Vec<u8>>>) -> Page {
    let (pod, container) = ("kubepods/pod1", "a".repeat(64));
    for (name, content) in names.iter().zip(contents) {
        let Some(content) = content else { continue };
        let name = match name.strip_prefix("CONTAINER") {
            Some(file) => format!("sys/fs/cgroup/{pod}/{container}{file}"),
            None => name.replace("MOUNT", "sys/fs/cgroup").replace("CONTAINER", &format!("{pod}/{container}")),
        };
        host.write_bytes(&name, &content);
    }
    let mut arguments = host.flags();
    arguments.extend(["collect", "--metrics-profile", "all", "--enable-collectors", "fd"].map(Into::into));
    let outcome = kata_pulse(arguments);
    assert!(matches!(outcome.code, Some(0 | 1)) && !outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    outcome.page()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// Through the whole of the real binary: nobody panics, and the page has no series twice and no value that is none.
    #[test]
    fn no_content_of_cgroup_v2_files_spoils_the_page(contents in vec(option::of(content()), V2_FILES.len())) {
        let page = page_of(&Host::v2(), &V2_FILES, contents);
        prop_assert!(page.samples().all(|sample| sample.value.is_finite()));
    }

    #[test]
    fn no_content_of_cgroup_v1_files_spoils_the_page(contents in vec(option::of(content()), V1_FILES.len())) {
        let page = page_of(&Host::bare(), &V1_FILES, contents);
        prop_assert!(page.samples().all(|sample| sample.value.is_finite()));
    }
}

proptest! {
    #[test]
    fn no_kernel_file_makes_a_parser_panic(content in input(), weight in any::<u64>()) {
        let content = content.as_slice();
        let _ = parse::number(content);
        let _ = parse::single(content, "key");
        let _ = parse::limit(content, "key");
        let _ = parse::keyed(content).count();
        let _ = parse::CpuStatV2::parse(content);
        let _ = parse::CpuStatV1::parse(content);
        let _ = parse::CpuacctStat::parse(content);
        let _ = parse::MemoryStatV2::parse(content);
        let _ = parse::MemoryStatV1::parse(content);
        let _ = parse::MemoryEvents::parse(content);
        let _ = parse::cpu_max(content);
        let _ = parse::cfs_quota(content);
        let _ = parse::shares_from_weight(weight);
        let _ = parse::pressure(content);
        let _ = parse::procs(content);
        let _ = parse::pids(content).count();
        let _ = parse::device_number(content);
        let _ = parse::io_stat(content);
        let _ = parse::blkio(content);
        let _ = net_dev(content, &Exclude::default());
    }

    #[test]
    fn no_request_makes_negotiation_panic(content in input()) {
        let header = String::from_utf8_lossy(&content);
        let _ = negotiate::format(&header);
        let _ = negotiate::gzip(&header);
        let _ = negotiate::wants(&header, "text/html");
    }

    #[test]
    fn no_name_makes_classification_panic(names in vec(prop_oneof![label(), "(kubepods|pod|crio-|kata_)?[a-f0-9.-]{0,70}(\\.slice|\\.scope)?"], 0..8)) {
        let _ = classes(&names.join("/"));
    }

    /// A number read is the number written: nothing is lost on the way through a kernel file.
    #[test]
    fn numbers_come_out_as_the_kernel_wrote_them(number in any::<u64>(), other in any::<u64>()) {
        prop_assert_eq!(parse::single(format!("{number}\n").as_bytes(), "key"), Ok(number));
        let stat = parse::MemoryStatV2::parse(format!("anon {number}\nfile_x 1\nfile {other}\n").as_bytes()).unwrap();
        prop_assert_eq!((stat.anon, stat.file, stat.file_mapped), (Some(number), Some(other), None));
        let io = parse::io_stat(format!("8:0 rbytes={number} wios={other}\n").as_bytes()).unwrap();
        prop_assert_eq!((io[0].read_bytes, io[0].writes, io[0].reads), (Some(Bytes(number)), Some(other), None));
    }

    #[test]
    fn escaping_leaves_nothing_that_ends_a_label(value in label()) {
        let mut escaped = String::new();
        escape_label_value(&value, &mut escaped);
        prop_assert!(!escaped.contains('\n'));
        let mut characters = escaped.chars();
        while let Some(character) = characters.next() {
            prop_assert_ne!(character, '"');
            if character == '\\' {
                prop_assert!(matches!(characters.next(), Some('\\' | '"' | 'n')));
            }
        }
        prop_assert_eq!(bounded(&value), served(&value));
    }

    #[test]
    fn labels_survive_encoder_and_parser(labels in labels(), own in label()) {
        let identity: Vec<(String, String)> =
            Labels::NAMES.iter().zip(labels.values()).map(|(name, value)| ((*name).to_owned(), served(value))).collect();
        let snapshot = Snapshot { rows: vec![row(labels, &own)], ..Snapshot::default() };
        let page = page(&snapshot);
        let mut seen = 0;
        for sample in page.samples() {
            for (name, value) in &identity {
                prop_assert_eq!(sample.label(name), Some(value.as_str()), "{} of {}", name, sample.name);
            }
            seen += 1;
        }
        // 8 of the network, usage and faults, reads under two names, huge pages, the filesystem.
        prop_assert_eq!(seen, 14);
        let own_label = |family: &str, label: &str, value: f64| {
            let sample = page.matching(family, &[]);
            prop_assert_eq!((sample.len(), sample[0].value), (1, value), "{}", family);
            prop_assert_eq!(sample[0].labels.len(), 7 + if family.contains("blkio") { 3 } else { 0 });
            Ok(sample[0].label(label).map(str::to_owned))
        };
        prop_assert_eq!(own_label("container_network_receive_bytes_total", "interface", 1.0)?, Some(served(&own)));
        prop_assert_eq!(own_label("container_hugetlb_usage_bytes", "pagesize", 8.0)?, Some(served(&own)));
        prop_assert_eq!(own_label("container_fs_usage_bytes", "device", 9.0)?, Some(served(&own)));
        let device = served(&format!("/{own}"));
        prop_assert_eq!(own_label("container_fs_reads_bytes_total", "device", 6.0)?, Some(device.clone()));
        prop_assert_eq!(own_label("container_blkio_device_usage_total", "device", 6.0)?, Some(device));
    }

    /// Families of our own take their labels another way.
    #[test]
    fn labels_of_own_families_survive_too(container in label(), namespace in label(), pod in label()) {
        let kills = OomKills {
            container: container.clone(),
            namespace: namespace.clone(),
            pod: pod.clone(),
            kills: 3,
        };
        let page = page(&Snapshot { oom_kills: vec![kills], ..Snapshot::default() });
        let labels = [("container", served(&container)), ("namespace", served(&namespace)), ("pod", served(&pod))];
        let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        prop_assert_eq!(page.value("kata_pulse_container_oom_kills_total", &labels), 3.0);
    }

    #[test]
    fn paths_of_every_driver_and_runtime_tell_pod_and_container(
        (uid, place) in uid().prop_flat_map(|uid| (Just(uid.clone()), place(uid))),
        id in "[0-9a-f]{64}",
        node in "[0-9a-f]{64}",
    ) {
        let path = place.path.replace("NODE", &node);
        let (parent, _) = path.rsplit_once('/').expect("a path has a last component");
        let path = format!("{parent}/{}", place.leaf.replace("ID", &id));
        let classes = classes(&path);
        let pods: Vec<&Class> = classes.iter().filter(|class| matches!(class, Class::Pod(_))).collect();
        prop_assert_eq!(pods, [&Class::Pod(uid.as_str().into())], "{}", path);
        let leaf = Class::Leaf(Leaf::Container { id: id.as_str().into() });
        prop_assert_eq!(classes.last(), Some(&leaf), "{}", path);
        prop_assert_eq!(classes.iter().filter(|class| **class == Class::Kubepods).count(), 1, "{}", path);

        // Kata's cgroupfs driver puts its mark before the sandbox's id.
        let kata = format!("{parent}/kata_{id}");
        prop_assert_eq!(self::classes(&kata).pop(), Some(Class::Leaf(Leaf::Kata { id: id.as_str().into() })));
        // What a container makes below itself is no container.
        let inner = format!("{path}/{id}");
        prop_assert_eq!(self::classes(&inner).pop(), Some(Class::Leaf(Leaf::Other)));
    }
}
