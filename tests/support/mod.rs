//! Shared by the integration tests: each of them includes it with `mod support;` and uses a part of it.
#![allow(dead_code)]

pub mod agent;
pub mod api_server;
pub mod cadvisor;
pub mod command;
pub mod exposition;
pub mod fuse;
pub mod gate;
pub mod golden;
pub mod guarded;
pub mod guests;
pub mod host;
pub mod kata;
pub mod metrics_server;
pub mod node;
pub mod openmetrics;
pub mod paths;
pub mod pki;
pub mod shim;
pub mod tls;
pub mod trees;
pub mod truth;
pub mod wire;
