//! Listeners: who takes SYNs, found by domain, address and port.

use core::net::IpAddr;

use hashbrown::HashTable;
use hoststack_transport::{DomainId, Endpoint, Key, ListenerId, Pool, SocketOptions};
use hoststack_wire::FlowHasher;

use crate::engine::ListenError;

/// A passive open (RFC 9293 §3.10.1): state LISTEN.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) id: ListenerId,
    pub(crate) domain: DomainId,
    /// An unspecified address takes SYNs for any address of its family.
    pub(crate) local: Endpoint,
    /// Most SYN-RECEIVED records of its own.
    pub(crate) backlog: u32,
    /// SYN-RECEIVED records now.
    pub(crate) syn_received: u32,
    /// Fast opens that wait for their ACK, and those that were reset lately.
    pub(crate) fast_opens: u32,
    pub(crate) options: SocketOptions,
}

/// The listeners of a worker.
pub(crate) struct Listeners {
    pool: Pool<Listener>,
    table: HashTable<Key>,
    hasher: FlowHasher,
}

impl Listeners {
    pub(crate) fn new(limit: usize, hasher: FlowHasher) -> Listeners {
        Listeners { pool: Pool::new(limit), table: HashTable::new(), hasher }
    }

    pub(crate) fn len(&self) -> usize {
        self.pool.len()
    }

    /// What the pool holds.
    pub(crate) fn usage(&self) -> hoststack_transport::Usage {
        self.pool.usage()
    }

    pub(crate) fn get(&self, key: Key) -> Option<&Listener> {
        self.pool.get(key)
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> Option<&mut Listener> {
        self.pool.get_mut(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Listener)> {
        self.pool.iter()
    }

    pub(crate) fn insert(&mut self, listener: Listener) -> Result<(), ListenError> {
        let (domain, local) = (listener.domain, listener.local);
        if self.find(domain, local).is_some() {
            return Err(ListenError::InUse);
        }
        let key = self.pool.insert(listener).map_err(|_| ListenError::Full)?;
        let hasher = self.hasher;
        let pool = &self.pool;
        self.table.insert_unique(hash(&hasher, domain, local), key, |&key| {
            pool.get(key).map_or(0, |l| hash(&hasher, l.domain, l.local))
        });
        Ok(())
    }

    /// Takes out one listener entry of that id; there is one for each endpoint it was given.
    pub(crate) fn remove(&mut self, id: ListenerId) -> Option<Key> {
        let key = self.pool.iter().find(|(_, listener)| listener.id == id)?.0;
        let listener = self.pool.remove(key)?;
        if let Ok(entry) =
            self.table.find_entry(hash(&self.hasher, listener.domain, listener.local), |&k| k == key)
        {
            entry.remove();
        }
        Some(key)
    }

    /// The listener for a SYN to `local`: the exact address before the unspecified one.
    pub(crate) fn lookup(&self, domain: DomainId, local: Endpoint) -> Option<Key> {
        if self.pool.is_empty() {
            return None;
        }
        self.find(domain, local).or_else(|| {
            let any = match local.addr {
                IpAddr::V4(_) => IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(_) => IpAddr::V6(core::net::Ipv6Addr::UNSPECIFIED),
            };
            self.find(domain, Endpoint::new(any, local.port))
        })
    }

    fn find(&self, domain: DomainId, local: Endpoint) -> Option<Key> {
        let is_it = |key: &Key| self.pool.get(*key).is_some_and(|l| l.domain == domain && l.local == local);
        self.table.find(hash(&self.hasher, domain, local), is_it).copied()
    }
}

fn hash(hasher: &FlowHasher, domain: DomainId, local: Endpoint) -> u64 {
    // The domain stands where a flow has the other port.
    let hash = hasher.hash(local.addr, local.port, IpAddr::V4(core::net::Ipv4Addr::UNSPECIFIED), domain.0);
    crate::engine::spread(hash)
}
