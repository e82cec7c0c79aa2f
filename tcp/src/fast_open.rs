//! TCP Fast Open (RFC 7413): the cookies that a server gives out, and those that a client remembers.
//!
//! What a listener does with a SYN that has a cookie is in `engine/passive`, what goes into the SYN in `half_opens`.

use alloc::collections::BTreeMap;
use core::net::IpAddr;

use hoststack_transport::{DomainId, Duration, FlowKey, Instant};
use hoststack_wire::FastOpenCookie;
use siphasher::sip::SipHasher24;

use crate::config::{FastOpenKey, TcpConfig};
use crate::isn::Secrets;

/// The keys of a server's cookies.
#[derive(Clone)]
pub(crate) struct CookieKeys {
    current: [u64; 2],
    previous: Option<[u64; 2]>,
}

/// What a cookie is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CookieVerdict {
    /// Ours.
    Valid,
    /// Ours, from before the key was changed: the client gets a new one.
    Old,
    /// Not ours: the client gets a new one.
    Invalid,
}

impl CookieKeys {
    pub(crate) fn new(config: &TcpConfig, secrets: &Secrets) -> CookieKeys {
        CookieKeys {
            current: config.fast_open_key.map_or_else(|| secrets.derive(b"fastopn"), FastOpenKey::halves),
            previous: config.fast_open_key_previous.map(FastOpenKey::halves),
        }
    }

    /// The cookie of the client at the flow's remote address (RFC 7413 §4.1.2), computed as Linux does, so that both
    /// may serve one address: SipHash-2-4 of the two addresses of the SYN, in little endian.
    pub(crate) fn cookie(&self, flow: &FlowKey) -> FastOpenCookie {
        cookie(self.current, flow)
    }

    /// What a client's cookie is worth. Whatever form it came in, its bytes count.
    pub(crate) fn judge(&self, flow: &FlowKey, shown: &FastOpenCookie) -> CookieVerdict {
        let is_of = |key: [u64; 2]| cookie(key, flow).as_slice() == shown.as_slice();
        if is_of(self.current) {
            CookieVerdict::Valid
        } else if self.previous.is_some_and(is_of) {
            CookieVerdict::Old
        } else {
            CookieVerdict::Invalid
        }
    }
}

fn cookie(key: [u64; 2], flow: &FlowKey) -> FastOpenCookie {
    let hasher = SipHasher24::new_with_keys(key[0], key[1]);
    let hash = match (flow.remote.addr, flow.local.addr) {
        (IpAddr::V4(client), IpAddr::V4(server)) => {
            let mut bytes = [0; 8];
            bytes[..4].copy_from_slice(&client.octets());
            bytes[4..].copy_from_slice(&server.octets());
            hasher.hash(&bytes)
        }
        (client, server) => {
            let mut bytes = [0; 32];
            for (half, addr) in bytes.chunks_mut(16).zip([client, server]) {
                half.copy_from_slice(&match addr {
                    IpAddr::V4(addr) => addr.to_ipv6_mapped().octets(),
                    IpAddr::V6(addr) => addr.octets(),
                });
            }
            hasher.hash(&bytes)
        }
    };
    FastOpenCookie::new(&hash.to_le_bytes()).unwrap_or_else(|| unreachable!("8 bytes are a cookie"))
}

/// What a connect puts into its SYN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attempt {
    /// The server's cookie, and data of up to that MSS.
    Cookie(FastOpenCookie, u16),
    /// The request for one.
    Request,
    /// Nothing: SYNs with data or the option get lost on the way to this server.
    Plain,
}

/// What is known of a server (RFC 7413 §4.1.3).
#[derive(Clone, Copy, Debug)]
struct Server {
    cookie: Option<FastOpenCookie>,
    /// The MSS that it announced.
    mss: u16,
    /// SYNs with the option or data in a row that got lost while one without came through.
    losses: u8,
    /// Not before then again.
    plain_until: Instant,
    /// Its place in [`CookieCache::by_use`].
    used: u64,
}

/// The cookies that a client remembers, by server address: a bounded number, the latest used.
#[derive(Debug, Default)]
pub(crate) struct CookieCache {
    limit: usize,
    servers: BTreeMap<(u16, IpAddr), Server>,
    by_use: BTreeMap<u64, (u16, IpAddr)>,
    uses: u64,
}

/// After the second loss in a row; doubled with each further one.
const PLAIN_FOR: Duration = Duration::from_secs(60);
/// Doublings of [`PLAIN_FOR`] at most: about an hour.
const DOUBLINGS_MAX: u8 = 6;

impl CookieCache {
    pub(crate) fn new(limit: usize) -> CookieCache {
        CookieCache { limit, ..CookieCache::default() }
    }

    /// Servers known.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.servers.len()
    }

    /// What a connect that starts now puts into its SYN.
    pub(crate) fn attempt(&mut self, now: Instant, flow: &FlowKey) -> Attempt {
        match self.touch(flow) {
            Some(server) if now < server.plain_until => Attempt::Plain,
            Some(&mut Server { cookie: Some(cookie), mss, .. }) => Attempt::Cookie(cookie, mss),
            _ => Attempt::Request,
        }
    }

    /// The MSS that a server announced, if it is known.
    pub(crate) fn mss(&self, flow: &FlowKey) -> Option<u16> {
        self.servers.get(&name(flow)).map(|server| server.mss).filter(|mss| *mss > 0)
    }

    /// Forgets all servers.
    pub(crate) fn clear(&mut self) {
        self.servers.clear();
        self.by_use.clear();
    }

    /// The server answered a SYN that had the option: with this cookie, if any, and this MSS.
    pub(crate) fn learn(&mut self, flow: &FlowKey, cookie: Option<FastOpenCookie>, mss: u16) {
        let cookie = cookie.filter(|cookie| !cookie.is_request());
        if cookie.is_none() && self.touch(flow).is_none() {
            return;
        }
        if let Some(server) = self.entry(flow) {
            server.mss = mss;
            server.cookie = cookie.or(server.cookie);
        }
    }

    /// The server answered a SYN that had data and needed no cookie, with this MSS.
    pub(crate) fn learn_mss(&mut self, flow: &FlowKey, mss: u16) {
        if let Some(server) = self.entry(flow) {
            server.mss = mss;
        }
    }

    /// A SYN with the option or data was answered: the path lets them through.
    pub(crate) fn on_passed(&mut self, flow: &FlowKey) {
        if let Some(server) = self.touch(flow) {
            server.losses = 0;
            server.plain_until = Instant::ZERO;
        }
    }

    /// A SYN with the option or data went unanswered, and one without them did not. RFC 7413 §4.1.3.1: "The client MUST
    /// cache negative responses"; the first may have been a loss like any other.
    pub(crate) fn on_lost(&mut self, now: Instant, flow: &FlowKey) {
        if let Some(server) = self.entry(flow) {
            server.losses = server.losses.saturating_add(1);
            if let Some(doublings) = server.losses.checked_sub(2) {
                server.plain_until = now + PLAIN_FOR * (1 << doublings.min(DOUBLINGS_MAX));
            }
        }
    }

    fn touch(&mut self, flow: &FlowKey) -> Option<&mut Server> {
        let name = name(flow);
        let server = self.servers.get_mut(&name)?;
        self.by_use.remove(&server.used);
        self.uses += 1;
        server.used = self.uses;
        self.by_use.insert(self.uses, name);
        Some(server)
    }

    /// The server's entry, made if there is none; `None` if there shall be none at all.
    fn entry(&mut self, flow: &FlowKey) -> Option<&mut Server> {
        let name = name(flow);
        if self.limit == 0 {
            return None;
        }
        if !self.servers.contains_key(&name) {
            if self.servers.len() >= self.limit
                && let Some((_, oldest)) = self.by_use.pop_first()
            {
                self.servers.remove(&oldest);
            }
            let server = Server { cookie: None, mss: 0, losses: 0, plain_until: Instant::ZERO, used: 0 };
            self.servers.insert(name, server);
        }
        self.touch(flow)
    }
}

fn name(flow: &FlowKey) -> (u16, IpAddr) {
    let DomainId(domain) = flow.domain;
    (domain, flow.remote.addr)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use hoststack_transport::{Endpoint, Protocol, Rng};

    fn flow(client: &str, server: &str) -> FlowKey {
        let at = |addr: &str| Endpoint::new(addr.parse().expect("an address"), 80);
        FlowKey { local: at(server), remote: at(client), domain: DomainId(0), protocol: Protocol::Tcp }
    }

    fn keys(key: Option<[u8; 16]>, previous: Option<[u8; 16]>) -> CookieKeys {
        let config = TcpConfig {
            fast_open_key: key.map(FastOpenKey::from),
            fast_open_key_previous: previous.map(FastOpenKey::from),
            ..TcpConfig::default()
        };
        CookieKeys::new(&config, &Secrets::new(&mut Rng::from_seed(1)))
    }

    const KEY: [u8; 16] =
        [0xa1, 0xa1, 0xa1, 0xa1, 0xb2, 0xb2, 0xb2, 0xb2, 0xc3, 0xc3, 0xc3, 0xc3, 0xd4, 0xd4, 0xd4, 0xd4];

    #[test]
    fn cookies_are_those_that_linux_gives_out_with_the_same_key() {
        // What Linux is seen to answer, for two keys and both address families.
        let (v4, v6) = (flow("192.0.2.1", "192.168.0.1"), flow("fd3d:fa7b:d17d::1", "fd3d:0a0b:17d6::1"));
        let text = |key, flow| keys(Some(key), None).cookie(flow).to_string();
        assert_eq!(text(KEY, &v4), "FO 3021b9d889017eeb");
        assert_eq!(text([0; 16], &v4), "FO b7c12350a90dc8f5");
        assert_eq!(text(KEY, &v6), "FO c1d1e9742a47a9bc");
        assert_eq!(text([0; 16], &v6), "FO 82af1a8f9a205c34");
    }

    #[test]
    fn a_cookie_is_of_one_address_and_of_the_current_or_the_previous_key() {
        let (ours, other) = (flow("192.0.2.1", "192.168.0.1"), flow("192.0.2.2", "192.168.0.1"));
        let (old, new) = (keys(Some(KEY), None), keys(Some([7; 16]), Some(KEY)));
        let cookie = old.cookie(&ours);
        assert_eq!(old.judge(&ours, &cookie), CookieVerdict::Valid);
        assert_eq!(old.judge(&ours, &cookie.experimental(true)), CookieVerdict::Valid);
        assert_eq!(old.judge(&other, &cookie), CookieVerdict::Invalid);
        assert_eq!(old.judge(&ours, &FastOpenCookie::REQUEST), CookieVerdict::Invalid);
        assert_eq!(new.judge(&ours, &cookie), CookieVerdict::Old);
        assert_eq!(keys(Some([7; 16]), None).judge(&ours, &cookie), CookieVerdict::Invalid);
        // Without a key from outside, each stack has its own.
        let (mine, theirs) = (Secrets::new(&mut Rng::from_seed(1)), Secrets::new(&mut Rng::from_seed(2)));
        let config = TcpConfig::default();
        assert_ne!(
            CookieKeys::new(&config, &mine).cookie(&ours),
            CookieKeys::new(&config, &theirs).cookie(&ours)
        );
    }

    fn remote(last: u8) -> FlowKey {
        flow(&alloc::format!("192.0.2.{last}"), "192.168.0.1")
    }

    #[test]
    fn the_cache_forgets_the_server_that_was_not_used_for_longest() {
        let mut cache = CookieCache::new(3);
        let cookie = FastOpenCookie::new(&[1, 2, 3, 4]);
        for last in [1, 2, 3] {
            cache.learn(&remote(last), cookie, 1460);
        }
        assert_ne!(cache.attempt(Instant::ZERO, &remote(1)), Attempt::Request);
        cache.learn(&remote(4), cookie, 1460);
        let knows = [1, 2, 3, 4].map(|last| cache.attempt(Instant::ZERO, &remote(last)) != Attempt::Request);
        assert_eq!((knows, cache.len()), ([true, false, true, true], 3));
        let mut none = CookieCache::new(0);
        none.learn(&remote(1), cookie, 1460);
        none.on_lost(Instant::ZERO, &remote(1));
        assert_eq!((none.attempt(Instant::ZERO, &remote(1)), none.len()), (Attempt::Request, 0));
    }

    #[test]
    fn a_server_that_gives_no_cookie_keeps_the_one_known_and_fills_no_cache() {
        let mut cache = CookieCache::new(8);
        cache.learn(&remote(1), None, 1460);
        cache.learn(&remote(1), Some(FastOpenCookie::REQUEST), 1460);
        assert_eq!(cache.len(), 0);
        let cookie = FastOpenCookie::new(&[1, 2, 3, 4]).expect("a cookie");
        cache.learn(&remote(1), Some(cookie), 1460);
        cache.learn(&remote(1), None, 900);
        assert_eq!(cache.attempt(Instant::ZERO, &remote(1)), Attempt::Cookie(cookie, 900));
        let mut elsewhere = remote(1);
        elsewhere.domain = DomainId(1);
        assert_eq!(cache.attempt(Instant::ZERO, &elsewhere), Attempt::Request);
    }

    #[test]
    fn a_path_that_swallows_data_in_syns_is_spared_for_longer_each_time() {
        let mut cache = CookieCache::new(8);
        let (flow, at) = (remote(1), |s: u64| Instant::from_millis(s * 1000));
        let cookie = FastOpenCookie::new(&[1, 2, 3, 4]).expect("a cookie");
        cache.learn(&flow, Some(cookie), 1460);
        let with_cookie = Attempt::Cookie(cookie, 1460);
        cache.on_lost(at(0), &flow);
        assert_eq!(cache.attempt(at(0), &flow), with_cookie, "one may be chance");
        cache.on_lost(at(0), &flow);
        assert_eq!(cache.attempt(at(59), &flow), Attempt::Plain);
        assert_eq!(cache.attempt(at(60), &flow), with_cookie);
        cache.on_lost(at(60), &flow);
        assert_eq!(cache.attempt(at(179), &flow), Attempt::Plain);
        assert_eq!(cache.attempt(at(180), &flow), with_cookie);
        for _ in 0..20 {
            cache.on_lost(at(180), &flow);
        }
        assert_eq!(cache.attempt(at(180 + 3839), &flow), Attempt::Plain);
        assert_eq!(cache.attempt(at(180 + 3840), &flow), with_cookie);
        cache.on_passed(&flow);
        cache.on_lost(at(9000), &flow);
        assert_eq!(cache.attempt(at(9000), &flow), with_cookie);
    }
}
