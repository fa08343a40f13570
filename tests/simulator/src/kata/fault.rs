//! What can go wrong at a door, and the switchboard that lets it.

use std::time::Duration;

use super::kind::Endpoint;

/// What happens to every request at an endpoint until it is healed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// A request is read and not answered, neither is a handshake, as when the VM stands still. What hangs is
    /// answered when the endpoint is healed.
    Hang,
    /// Every answer comes this much later.
    Delay(Duration),
    /// Every byte of an answer comes this much after the one before.
    Drip(Duration),
    /// The connection is closed in the middle of the answer.
    CutShort,
    /// The connection is closed instead of an answer.
    Close,
    /// The answer is a GiB long, and says so.
    Flood,
    /// The answer has bytes in it that are no UTF-8, where text belongs; its length is right.
    InvalidUtf8,
    /// The numbers are in other units than they should be: guest CPU time in ticks, memory in KiB, container CPU
    /// time in microseconds, a shim's own memory as the other runtime tells it, hypervisor counters as text.
    WrongUnits,
    /// The answer is no HTTP, or no protobuf.
    Garbage,
    /// The answer is a little longer than a peer may be asked to take: a frame of more than 4 MiB, all of it sent, or
    /// an HTTP header of 1 MiB.
    Oversize,
    /// The answer is an error: HTTP 500, or the ttrpc status INTERNAL.
    Fail,
    /// Connections are closed and new ones refused, although the socket is there: its owner has died.
    Refuse,
    /// The hypervisor answers a handshake, and not with `OK`. Where there is no handshake, nothing is wrong.
    DenyHandshake,
    /// The hypervisor's answer to a handshake is a line without an end. Where there is no handshake, nothing is wrong.
    EndlessHandshake,
}

/// Faults and cuts, as every connection of a sandbox watches them.
#[derive(Debug, Clone, Default)]
pub(super) struct Control {
    faults: [Option<Fault>; Endpoint::ALL.len()],
    cuts: [u64; Endpoint::ALL.len()],
    /// Counts the times the doors were closed or opened. Whoever serves another generation leaves.
    pub(super) generation: u64,
}

impl Control {
    pub(super) fn fault(&self, endpoint: Endpoint) -> Option<&Fault> {
        self.faults[endpoint.index()].as_ref()
    }

    pub(super) fn set_fault(&mut self, endpoint: Endpoint, fault: Option<Fault>) {
        self.faults[endpoint.index()] = fault;
    }

    pub(super) fn cuts(&self, endpoint: Endpoint) -> u64 {
        self.cuts[endpoint.index()]
    }

    pub(super) fn cut(&mut self, endpoint: Endpoint) {
        self.cuts[endpoint.index()] += 1;
    }
}
