//! Shared by the integration tests: each of them includes it with `mod support;` and uses a part of it.
#![allow(dead_code)]

pub mod agent;
pub mod exposition;
pub mod truth;
