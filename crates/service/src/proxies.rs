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
pub struct ClientAddr {
    pub ip: IpAddr,
    /// The address is a proxy's that asks for somebody else and names nobody who could be found. It pays for them all,
    /// or whoever makes it say nothing would have no limit.
    pub nameless: bool,
}

impl ClientAddr {
    /// Of one who asks for itself.
    pub fn itself(ip: IpAddr) -> Self {
        Self { ip, nameless: false }
    }

    /// Of a proxy that asks for it knows not whom.
    pub fn nameless(ip: IpAddr) -> Self {
        Self { ip, nameless: true }
    }
}

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

    /// Whether nothing that it asks is limited: a proxy that asks for itself, such as whether this program lives.
    pub fn exempts(&self, client: &ClientAddr) -> bool {
        !client.nameless && self.contains(client.ip)
    }

    /// Who asks, over a connection from `peer`. Of a peer that is not trusted no header is looked at.
    ///
    /// From the right, since each proxy adds at the end: what is left of the first stranger is the stranger's to
    /// make up. What is no address ends the walk at the last one that was, which then asks for somebody nameless. Each
    /// piece is read by itself, as bytes: what a stranger writes must not spoil what a proxy added to it.
    pub fn client_of(&self, peer: IpAddr, headers: &HeaderMap) -> ClientAddr {
        let mut ip = peer.to_canonical();
        let lists = headers.get_all(FORWARDED_FOR).iter().rev();
        let mut pieces = lists.flat_map(|list| list.as_bytes().rsplit(|byte| *byte == b','));
        while self.contains(ip) {
            let Some(piece) = pieces.next() else { break };
            let Some(before) = address(piece) else { return ClientAddr::nameless(ip) };
            ip = before;
        }
        ClientAddr::itself(ip)
    }
}

fn network(text: &str) -> Option<IpNet> {
    let address = || IpAddr::from_str(text).ok().map(|ip| IpNet::from(ip.to_canonical()));
    IpNet::from_str(text).ok().or_else(address).map(|network| network.trunc())
}

/// Some write the port beside it, which no standard forbids.
fn address(piece: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(piece).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || SocketAddr::from_str(text).ok().map(|addr| addr.ip());
    IpAddr::from_str(bare).ok().or_else(with_port).map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn proxies() -> TrustedProxies {
        TrustedProxies::parse("10.0.0.0/8, 192.0.2.7,fd00::/8").unwrap()
    }

    fn asker(peer: &str, lists: &[&[u8]]) -> ClientAddr {
        let mut headers = HeaderMap::new();
        for list in lists {
            headers.append(FORWARDED_FOR, HeaderValue::from_bytes(list).unwrap());
        }
        proxies().client_of(ip(peer), &headers)
    }

    fn client(peer: &str, lists: &[&str]) -> String {
        let lists: Vec<_> = lists.iter().map(|list| list.as_bytes()).collect();
        asker(peer, &lists).ip.to_string()
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
        assert_eq!(nobody.client_of(ip("127.0.0.1"), &headers), ClientAddr::itself(ip("127.0.0.1")));
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
    fn bytes_that_are_no_text_spoil_nothing_but_the_piece_that_they_are_in() {
        let stranger = ClientAddr::itself(ip("203.0.113.9"));
        assert_eq!(asker("10.0.0.1", &[b"\xff, 203.0.113.9"]), stranger);
        assert_eq!(asker("10.0.0.1", &[b"198.51.100.1\x80,\xc3\xbf , 203.0.113.9, 10.0.0.2"]), stranger);
        assert_eq!(asker("10.0.0.1", &[b"\xff", b"203.0.113.9"]), stranger);
        assert_eq!(
            asker("10.0.0.1", &[b"203.0.113.9, \xff, 10.0.0.2"]),
            ClientAddr::nameless(ip("10.0.0.2"))
        );
        assert_eq!(asker("10.0.0.1", &[b"203.0.113.9\xff"]), ClientAddr::nameless(ip("10.0.0.1")));
    }

    #[test]
    fn a_proxy_is_exempt_for_itself_and_not_for_somebody_whom_it_does_not_name() {
        for (lists, exempt) in [
            (&[][..], true),
            (&[b"10.0.0.3, 10.0.0.2".as_slice()], true),
            (&[b"unknown"], false),
            (&[b""], false),
            (&[b"\xff"], false),
            (&[b"unknown, 10.0.0.2"], false),
            (&[b"203.0.113.9"], false),
        ] {
            let asker = asker("10.0.0.1", lists);
            assert_eq!(proxies().exempts(&asker), exempt, "{asker:?}");
        }
        assert!(!proxies().exempts(&asker("203.0.113.9", &[])));
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
