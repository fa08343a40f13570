//! Which side tells a pod's network counters: the guest, or the node's end of the same wires.
//!
//! The two count the same packets but began at different moments, so a series must not go from one to the other. The
//! side is chosen once for a sandbox's life: the guest as soon as it says anything, the node where the guest is known
//! to stay silent, or was silent for so long that waiting costs more than it gives. Pure.

/// Collections that a guest's silence is waited out: it may still be booting.
const PATIENCE: u32 = 3;

/// A side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkSide {
    /// `kata_guest_netdev_stat` of the agent.
    Guest,
    /// `/proc/<vmm>/net/dev`, without the tap.
    Host,
}

impl NetworkSide {
    /// For people.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Host => "host",
        }
    }
}

/// What one collection learnt of the guest's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It came.
    Text,
    /// Not this time.
    Nothing,
    /// Nobody was asked, for reasons that stay: a policy, a missing right, a shim that would not survive it.
    NeverWill,
}

/// The choice for one sandbox.
#[derive(Debug, Default)]
pub struct NetworkChoice {
    side: Option<NetworkSide>,
    silent: u32,
}

impl NetworkChoice {
    /// The side to be served, if it is known yet.
    pub fn after(&mut self, heard: Heard, host_has_interfaces: bool) -> Option<NetworkSide> {
        if self.side.is_none() {
            self.silent = self.silent.saturating_add(u32::from(heard == Heard::Nothing));
            self.side = match heard {
                Heard::Text => Some(NetworkSide::Guest),
                Heard::NeverWill => host_has_interfaces.then_some(NetworkSide::Host),
                Heard::Nothing => (self.silent >= PATIENCE && host_has_interfaces).then_some(NetworkSide::Host),
            };
        }
        self.side
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sides(heard: &[Heard], host: bool) -> Vec<Option<NetworkSide>> {
        let mut choice = NetworkChoice::default();
        heard.iter().map(|heard| choice.after(*heard, host)).collect()
    }

    #[test]
    fn the_first_side_stays() {
        use Heard::{NeverWill, Nothing, Text};
        let (guest, host) = (Some(NetworkSide::Guest), Some(NetworkSide::Host));
        assert_eq!(sides(&[Text, Nothing, NeverWill, Text], true), [guest; 4]);
        assert_eq!(sides(&[NeverWill, Text], true), [host; 2]);
        assert_eq!(sides(&[Nothing, Nothing, Text], true), [None, None, guest], "it was booting");
        assert_eq!(sides(&[Nothing, Nothing, Nothing, Text], true), [None, None, host, host]);
        assert_eq!(sides(&[NeverWill, Nothing, Nothing, Nothing, Text], false), [None, None, None, None, guest]);
    }
}
