//! Names that become labels, whoever gave them.

use std::sync::Arc;

use kata_pulse::model::identity::{Labels, MAX_LABEL_BYTES};
use kata_pulse::model::snapshot::{OomKills, Row, Snapshot};
use kata_pulse::model::units::Bytes;
use kata_pulse::model::usage::{Filesystem, Hugetlb, Interface, Memory, Traffic, Usage};

use crate::page;

/// Six identity labels and one of the family's own, apart by bytes that no text has: what is served is what went in.
pub fn labels(input: &[u8]) {
    let mut texts = input.split(|byte| *byte == 0xff).map(|text| String::from_utf8_lossy(text).into_owned());
    let mut text = || texts.next().unwrap_or_default();
    let own = text();
    let labels = Labels { container: text(), id: text(), image: text(), name: text(), namespace: text(), pod: text() };
    let kills = OomKills {
        namespace: labels.namespace.clone(),
        pod: labels.pod.clone(),
        container: labels.container.clone(),
        kills: 1,
    };
    let identity = Labels::NAMES.map(str::to_owned).into_iter().zip(labels.values().map(served)).collect::<Vec<_>>();
    let subject = Arc::new(page::subject(labels));
    let rows = vec![Row { subject, usage: usage(&own) }];
    let page = page::of(&Snapshot { rows, oom_kills: vec![kills], ..Snapshot::default() });
    let mut seen = 0;
    for sample in page.samples().filter(|sample| sample.name.starts_with("container_")) {
        for (name, value) in &identity {
            assert_eq!(sample.label(name), Some(value.as_str()), "{name} of {}", sample.name);
        }
        for name in ["interface", "pagesize", "device"] {
            assert!(sample.label(name).is_none_or(|value| value == served(&own)), "{sample:?}");
        }
        seen += 1;
    }
    // Memory, eight counters of the interface, huge pages, the filesystem.
    assert_eq!(seen, 11, "samples were lost or made up");
    let kills = page.matching("kata_pulse_container_oom_kills_total", &[]);
    assert_eq!(kills.len(), 1);
    for (name, value) in identity.iter().filter(|(name, _)| ["container", "namespace", "pod"].contains(&name.as_str()))
    {
        assert_eq!(kills[0].label(name), Some(value.as_str()));
    }
}

fn usage(own: &str) -> Usage {
    let traffic = Traffic { bytes: Bytes(1), packets: 2, errors: 3, dropped: 4 };
    Usage {
        memory: Some(Memory { usage: Some(Bytes(17)), ..Memory::default() }),
        network: vec![Interface { name: own.to_owned(), receive: traffic, transmit: traffic }],
        hugetlb: vec![Hugetlb { page_size: own.to_owned(), usage: Bytes(8), max_usage: None, failcnt: None }],
        filesystems: vec![Filesystem {
            device: own.to_owned(),
            usage: Some(Bytes(9)),
            limit: None,
            inodes: None,
            inodes_free: None,
        }],
        ..Usage::default()
    }
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
