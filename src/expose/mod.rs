//! How is it said? One table row per metric, and the formats and routes that serve the tables.
//!
//! [`family`] defines a row, [`families`] holds the tables, [`walk`] goes through them for one snapshot and hands each
//! sample to an [`walk::Output`]: [`text`] writes the two exposition formats, [`json`] an object for tools. [`pods`] puts
//! rows together by pod, [`resource`] chooses among them for metrics-server, [`summary`] is the kubelet's JSON. [`page`]
//! keeps what was encoded for concurrent scrapes and [`http`] serves it.

pub mod catalog;
pub mod families;
pub mod family;
pub mod http;
pub mod json;
pub mod negotiate;
pub mod number;
pub mod page;
pub mod passthrough;
pub mod pods;
pub mod processes;
pub mod rates;
pub mod resource;
pub mod sandboxes;
pub mod summary;
pub mod text;
pub mod walk;
