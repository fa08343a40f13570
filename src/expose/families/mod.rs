//! The tables: every metric the agent serves, one row each.

mod agent;
mod container;
mod host;
mod kata;
mod node;
mod resource;
mod sandbox;
mod top;
mod volume;

use crate::expose::family::{Family, Kind, Meta, Profile, Put};
use crate::model::units::Value;

pub use agent::AGENT;
pub use container::CONTAINER;
pub use host::{Group, HOST, NAMED};
pub use kata::KATA;
pub use node::NODE;
pub use resource::{RESOURCE, RESOURCE_ERROR};
pub use sandbox::{OOM, SANDBOX};
pub use top::TOP;
pub use volume::{CLAIM, VOLUME, VOLUMES};

/// A row of a table, everything positional but the reading, so that tables read as tables.
const fn family<S>(
    kind: Kind,
    profile: Profile,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    source: &'static str,
    read: fn(&S, Put<'_>),
) -> Family<S> {
    Family { meta: Meta { name, kind, help, labels, stamped: false, profile, source }, read }
}

/// Puts the value if there is one, without labels of its own.
fn some(put: Put<'_>, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        put(&[], value.into());
    }
}
