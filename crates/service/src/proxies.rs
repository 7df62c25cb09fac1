//! Who asks, behind proxies: the addresses in front of a listener that are believed (`TRUSTED_PROXIES`), and whom they
//! say they ask for.
//!
//! Everybody may write a header, so only those named are believed, and of a list of addresses only what they wrote
//! themselves: the right-most one that is not theirs. What the PROXY protocol says is read by [`http`](crate::http).

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;
use std::sync::Arc;

use http::HeaderMap;
use http::header::HeaderName;
use ipnet::IpNet;

/// Each proxy adds at its end the address it was asked by.
pub const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of who asks, as far as it can be known: an extension of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientAddr(pub IpAddr);

/// Addresses and networks whose word is taken; cheap to clone. None by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    /// Reads a list such as `10.0.0.5, 10.1.0.0/16, fd00::/8`.
    ///
    /// # Errors
    /// What it must be, if it is not that.
    pub fn parse(list: &str) -> Result<Self, String> {
        let networks = list.split(',').map(|one| network(one.trim())).collect::<Option<Vec<_>>>();
        let networks =
            networks.ok_or("must be addresses and networks such as 10.0.0.5,10.1.0.0/16,fd00::/8")?;
        if networks.iter().any(|network| network.prefix_len() == 0) {
            return Err("trusts everyone: name the proxies alone".into());
        }
        Ok(Self(networks.into()))
    }

    /// Whether it is a proxy that is believed.
    pub fn contains(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.contains(&ip))
    }

    /// Who asks, over a connection from `peer`. Of a peer that is not trusted no header is looked at.
    ///
    /// From the right, since each proxy adds at the end: what is left of the first stranger is the stranger's to
    /// make up. What is no address ends the walk at the last one that was.
    pub fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let mut client = peer.to_canonical();
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut addresses = lists.flat_map(|list| list.to_str().unwrap_or_default().rsplit(','));
        while self.contains(client) {
            let Some(before) = addresses.next().and_then(address) else { break };
            client = before;
        }
        client
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || IpAddr::from_str(text).ok().map(|ip| IpNet::from(ip.to_canonical()));
    IpNet::from_str(text).ok().or_else(address).map(|network| network.trunc())
}

/// Some write the port beside it, which no standard forbids.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || SocketAddr::from_str(text).ok().map(|addr| addr.ip());
    IpAddr::from_str(bare).ok().or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn client(peer: &str, lists: &[&str]) -> String {
        let proxies = TrustedProxies::parse("10.0.0.0/8, 192.0.2.7,fd00::/8").unwrap();
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, list.parse().unwrap());
        }
        proxies.client_of(ip(peer), &headers).to_string()
    }

    #[test]
    fn the_right_most_address_that_is_not_a_proxys_is_who_asks() {
        for (peer, lists, expected) in [
            ("10.0.0.1", &["203.0.113.9"][..], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9, 192.0.2.7, 10.9.9.9"], "203.0.113.9"),
            ("10.0.0.1", &["203.0.113.9", "192.0.2.7,10.9.9.9"], "203.0.113.9"),
            ("::ffff:10.0.0.1", &["203.0.113.9"], "203.0.113.9"),
            ("fd00::1", &["2001:db8::5, fd12::3"], "2001:db8::5"),
            ("fd00::1", &["[2001:db8::5]:4711"], "2001:db8::5"),
            ("fd00::1", &["[2001:db8::5]"], "2001:db8::5"),
            ("10.0.0.1", &["203.0.113.9:4711"], "203.0.113.9"),
            ("10.0.0.1", &["::ffff:203.0.113.9"], "203.0.113.9"),
        ] {
            assert_eq!(client(peer, lists), expected, "{peer} {lists:?}");
        }
    }

    #[test]
    fn what_a_stranger_writes_to_the_left_is_not_believed() {
        assert_eq!(client("10.0.0.1", &["198.51.100.1, 203.0.113.9"]), "203.0.113.9");
        assert_eq!(client("10.0.0.1", &["198.51.100.1", "10.2.2.2, 203.0.113.9, 10.0.0.3"]), "203.0.113.9");
        // A stranger who calls itself a proxy is still the stranger that a proxy saw.
        assert_eq!(client("10.0.0.1", &["10.0.0.2, 203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn the_header_of_a_peer_that_is_not_trusted_is_nobodys() {
        assert_eq!(client("203.0.113.9", &["198.51.100.1"]), "203.0.113.9");
        assert_eq!(client("2001:db8::1", &["198.51.100.1"]), "2001:db8::1");
        let nobody = TrustedProxies::default();
        let headers = HeaderMap::from_iter([(FORWARDED_FOR, "198.51.100.1".parse().unwrap())]);
        assert_eq!(nobody.client_of(ip("127.0.0.1"), &headers), ip("127.0.0.1"));
    }

    #[test]
    fn what_is_no_address_ends_the_walk_at_the_last_that_was() {
        for list in ["unknown", "", "203.0.113.9 198.51.100.1", "203.0.113.999", "_hidden", "a, b,"] {
            assert_eq!(client("10.0.0.1", &[list]), "10.0.0.1", "{list:?}");
        }
        assert_eq!(client("10.0.0.1", &["203.0.113.9, nonsense, 10.0.0.2"]), "10.0.0.2");
        // All of them proxies: the first of them asked for itself.
        assert_eq!(client("10.0.0.1", &["10.0.0.3, 10.0.0.2"]), "10.0.0.3");
    }

    #[test]
    fn a_list_of_something_else_is_refused() {
        for wrong in ["", "proxy.example.com", "10.0.0.0/33", "10.0.0.1,", "10.0.0.1 10.0.0.2", "10.0.0.1:80"]
        {
            assert!(TrustedProxies::parse(wrong).unwrap_err().starts_with("must be"), "{wrong}");
        }
        for everyone in ["0.0.0.0/0", "10.0.0.1,::/0"] {
            assert!(TrustedProxies::parse(everyone).unwrap_err().contains("everyone"), "{everyone}");
        }
        assert!(TrustedProxies::parse("10.1.2.3/8").unwrap().contains(ip("10.200.0.1")));
    }
}
