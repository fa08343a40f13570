//! kata-pulse: one agent per node that measures every pod where the truth is and says it in cAdvisor's words.
//!
//! ```text
//!   discover ──▶ model::Inventory ──▶ collect ──▶ model::Snapshot ──▶ expose ──▶ HTTP, stdout
//!   (CRI, cgroup tree)                (cgroup, proc, guests)           (one table row per metric)
//! ```
//!
//! Imports go one way: `model` is a leaf; `discover`, `collect` and `expose` import it and never each other; `agent`
//! and `main` are where they meet. `tests/layering.rs` holds this.
//! Read in this order: [`model`], [`discover`], [`collect`], [`expose`], [`agent`], [`config`]; and [`web`], who may read
//! what is served.

pub mod agent;
pub mod cli;
pub mod collect;
pub mod config;
pub mod containerd;
pub mod cri;
pub mod discover;
pub mod expose;
mod flight;
pub mod heap;
pub mod kubernetes;
pub mod log;
pub mod model;
mod open_fds;
pub mod protos;
pub mod service;
pub mod telemetry;
pub mod transport;
pub mod unix_http;
mod unix_socket;
pub mod web;
