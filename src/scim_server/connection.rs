//! State of one connection that its listener and the SCIM endpoint share.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// One connection, as a request extension. The listener sets the peer; the endpoint sets whether the last request had an accepted
/// token and whether it waits for a body. By these the listener chooses which connection to close when there are too many.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connection(Arc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    peer: Option<IpAddr>,
    authenticated: AtomicBool,
    receiving: AtomicBool,
}

impl Connection {
    /// A connection of this peer.
    #[must_use]
    pub(crate) fn of(peer: IpAddr) -> Self {
        Self(Arc::new(Notes { peer: Some(peer), ..Notes::default() }))
    }

    /// The address at the other end, which may be a proxy's.
    #[must_use]
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.0.peer
    }

    /// Whether the last request on it had an accepted token.
    #[must_use]
    pub(crate) fn is_authenticated(&self) -> bool {
        self.0.authenticated.load(Ordering::Acquire)
    }

    /// Whether a request on it waits for its body.
    #[must_use]
    pub(crate) fn is_receiving(&self) -> bool {
        self.0.receiving.load(Ordering::Acquire)
    }

    /// Sets whether the last request had an accepted token.
    pub(crate) fn set_authenticated(&self, authenticated: bool) {
        self.0.authenticated.store(authenticated, Ordering::Release);
    }

    /// Sets whether a request waits for its body.
    pub(crate) fn set_receiving(&self, receiving: bool) {
        self.0.receiving.store(receiving, Ordering::Release);
    }
}
