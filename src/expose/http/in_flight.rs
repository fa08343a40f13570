//! How many requests are answered at once, and for whom.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Requests of one client answered at once; the next one is told to come back.
const MAX_OF_CLIENT: usize = 40;

/// The same of all clients, so that one that asks for everything at once does not take the others' places.
const MAX_IN_ALL: usize = 160;

/// Requests being answered, by the client's address.
pub(super) struct InFlight {
    by_client: Mutex<HashMap<Option<IpAddr>, usize>>,
    when_none: Box<dyn Fn() + Send + Sync>,
}

impl InFlight {
    /// None yet. `when_none` is called whenever the last one has been answered.
    pub(super) fn new(when_none: impl Fn() + Send + Sync + 'static) -> Self {
        Self { by_client: Mutex::default(), when_none: Box::new(when_none) }
    }

    /// Takes a place until it is dropped. `None`: there are too many, and this one does not insist.
    pub(super) fn enter(&self, client: Option<IpAddr>, insists: bool) -> Option<Place<'_>> {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = by_client.values().sum();
        let theirs = by_client.entry(client).or_default();
        if (*theirs >= MAX_OF_CLIENT || all >= MAX_IN_ALL) && !insists {
            return None;
        }
        *theirs += 1;
        Some(Place { all: self, client })
    }

    fn leave(&self, client: Option<IpAddr>) {
        let mut by_client = self.by_client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(theirs) = by_client.get_mut(&client) {
            *theirs -= 1;
        }
        by_client.retain(|_, theirs| *theirs > 0);
        let none = by_client.is_empty();
        drop(by_client);
        if none {
            (self.when_none)();
        }
    }
}

/// A request's place, given back also when the client went away while it was answered.
pub(super) struct Place<'a> {
    all: &'a InFlight,
    client: Option<IpAddr>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.all.leave(self.client);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn client(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    #[test]
    fn one_client_does_not_take_anothers_place() {
        let all = InFlight::new(|| {});
        let greedy: Vec<_> = (0..MAX_OF_CLIENT).map(|_| all.enter(client(1), false).unwrap()).collect();
        assert!(all.enter(client(1), false).is_none());
        assert!(all.enter(client(2), false).is_some());
        assert!(all.enter(client(1), true).is_some(), "health checks insist");
        drop(greedy);
        assert!(all.enter(client(1), false).is_some());
        assert!(all.by_client.lock().unwrap().is_empty(), "nobody is remembered");
    }

    #[test]
    fn all_clients_together_have_a_limit() {
        let all = InFlight::new(|| {});
        let places: Vec<_> =
            (0..MAX_IN_ALL).map(|at| all.enter(client(u8::try_from(at / 30).unwrap()), false).unwrap()).collect();
        assert!(all.enter(client(99), false).is_none());
        drop(places);
        assert!(all.enter(client(99), false).is_some());
    }

    #[test]
    fn that_nobody_is_left_is_said_once() {
        let said = Arc::new(AtomicUsize::new(0));
        let all = InFlight::new({
            let said = Arc::clone(&said);
            move || {
                said.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (one, other) = (all.enter(client(1), false), all.enter(client(2), false));
        drop(one);
        assert_eq!(said.load(Ordering::Relaxed), 0);
        drop(other);
        assert_eq!(said.load(Ordering::Relaxed), 1);
    }
}
