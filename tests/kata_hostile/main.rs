//! Kata sandboxes that hang, break off, flood and lie, measured by the real binary: the sandboxes beside them are told
//! in full, nothing false is told of them, they are said to be ill, and they come back.

#[path = "../support/mod.rs"]
mod support;
mod symptoms;
