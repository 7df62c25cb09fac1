//! The PROXY protocol, versions 1 and 2: what a proxy that does not read HTTP writes before the first byte of its
//! client (haproxy.org, `proxy-protocol.txt`). It is looked for on connections of trusted proxies alone; to everyone
//! else it is a malformed request.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use proxy_header::{Error, ParseConfig, ProxyHeader};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::sleep;

/// `PROXY` alone would be the method of a request as well, and a proxy that reads HTTP passes on whatever its clients
/// ask: taken for a header and closed without an answer, it would have the proxy think that this program is down.
const V1: [&[u8]; 4] = [b"PROXY TCP4 ", b"PROXY TCP6 ", b"PROXY UNKNOWN\r", b"PROXY UNKNOWN "];
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 says its length, after 14 bytes, without these 16.
const V2_FIXED: usize = 16;
/// What version 2 says right after its signature when nobody connects through the proxy.
const V2_LOCAL: u8 = 0x20;
/// The longest that is read: 232 bytes are the longest addresses, the rest is for what proxies add of TLS. Version 1
/// has 107 at most.
const BYTES_MAX: usize = 4 * 1024;
/// Between two looks at a header that came in part: what is there already is looked at without being taken, so the
/// system would say at once, again and again, that there is something. Proxies write it in one piece.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// For whom a proxy connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// Nothing of anybody else: there is no header, or the one of a connection that is the proxy's own (`LOCAL`, a
    /// health check). Such a proxy may read HTTP.
    Nothing,
    Client(IpAddr),
    /// For somebody without an address (`UNKNOWN`, or a family that is not of IP). The request is that client's from
    /// its first byte, so nothing in it is the proxy's word.
    Nameless,
}

/// What stands at the beginning of a connection.
#[derive(Debug, PartialEq, Eq)]
enum Beginning {
    /// No such header.
    Plain,
    /// Of this length.
    Header(usize, Told),
    Incomplete,
    Malformed,
}

/// For whom a proxy connects, if it says so; its words are taken off the connection, and nothing else is.
///
/// # Errors
/// If it begins to say so and does not go on as it must.
pub(super) async fn read(stream: &mut TcpStream) -> io::Result<Told> {
    let mut bytes = vec![0; BYTES_MAX];
    let mut seen = 0;
    loop {
        let there = stream.peek(&mut bytes).await?;
        match beginning(&bytes[..there]) {
            Beginning::Plain => return Ok(Told::Nothing),
            Beginning::Header(length, told) => {
                stream.read_exact(&mut bytes[..length]).await?;
                return Ok(told);
            }
            Beginning::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            // Closed: whoever reads next sees it too.
            Beginning::Incomplete if there == 0 => return Ok(Told::Nothing),
            Beginning::Incomplete if there == seen => sleep(LOOK_EVERY).await,
            Beginning::Incomplete => seen = there,
        }
    }
}

fn beginning(bytes: &[u8]) -> Beginning {
    let may_be = |signature: &[u8]| bytes.iter().zip(signature).all(|(byte, wanted)| byte == wanted);
    let is_v2 = may_be(V2);
    if !is_v2 && !V1.into_iter().any(may_be) {
        return Beginning::Plain;
    }
    if let (true, Some([high, low])) = (is_v2, bytes.get(V2_FIXED - 2..V2_FIXED))
        && V2_FIXED + usize::from(u16::from_be_bytes([*high, *low])) > BYTES_MAX
    {
        return Beginning::Malformed;
    }
    let config = ParseConfig { include_tlvs: false, ..ParseConfig::default() };
    match ProxyHeader::parse(bytes, config) {
        Ok((header, length)) => {
            let told = match header.proxied_address() {
                Some(address) => Told::Client(address.source.ip().to_canonical()),
                None if is_v2 && bytes.get(V2.len()) == Some(&V2_LOCAL) => Told::Nothing,
                None => Told::Nameless,
            };
            Beginning::Header(length, told)
        }
        Err(Error::BufferTooShort) => Beginning::Incomplete,
        Err(_) => Beginning::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = u16::try_from(rest.len()).unwrap().to_be_bytes();
        [V2, &[command, family], &length, rest].concat()
    }

    fn client(ip: &str) -> Told {
        Told::Client(ip.parse().unwrap())
    }

    fn is_of(bytes: &[u8], length: usize, told: Told) {
        let more = [bytes, b"GET / HTTP/1.1\r\n"].concat();
        assert_eq!(beginning(&more), Beginning::Header(length, told), "{}", bytes.escape_ascii());
        for part in 0..length {
            assert_eq!(beginning(&bytes[..part]), Beginning::Incomplete, "{part} bytes of it");
        }
    }

    #[test]
    fn both_versions_say_for_whom_a_proxy_connects() {
        let four = b"PROXY TCP4 203.0.113.9 10.0.0.1 4711 7301\r\n";
        is_of(four, four.len(), client("203.0.113.9"));
        let six = b"PROXY TCP6 2001:db8::5 fd00::1 4711 7301\r\n";
        is_of(six, six.len(), client("2001:db8::5"));
        let mapped = b"PROXY TCP6 ::ffff:203.0.113.9 fd00::1 4711 7301\r\n";
        is_of(mapped, mapped.len(), client("203.0.113.9"));
        let four = v2(0x21, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0x1b, 0x59]);
        is_of(&four, 28, client("203.0.113.9"));
        let mut addresses = [0; 36];
        addresses[..16].copy_from_slice(&"2001:db8::5".parse::<std::net::Ipv6Addr>().unwrap().octets());
        is_of(&v2(0x21, 0x21, &addresses), 52, client("2001:db8::5"));
        // With something more of the proxy's, as those of clouds write.
        let more = [&addresses[..], &[0xea, 0, 3, 1, 2, 3]].concat();
        is_of(&v2(0x21, 0x21, &more), 58, client("2001:db8::5"));
    }

    #[test]
    fn a_proxy_that_connects_for_itself_says_nothing_of_anybody() {
        is_of(&v2(0x20, 0x00, &[]), 16, Told::Nothing);
        is_of(&v2(0x20, 0x11, &[203, 0, 113, 9, 10, 0, 0, 1, 0x12, 0x67, 0x1b, 0x59]), 28, Told::Nothing);
    }

    #[test]
    fn a_proxy_that_connects_for_somebody_without_an_address_is_not_taken_for_one_that_says_nothing() {
        is_of(b"PROXY UNKNOWN\r\n", 15, Told::Nameless);
        let with_words = b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n";
        is_of(with_words, with_words.len(), Told::Nameless);
        is_of(&v2(0x21, 0x00, &[]), 16, Told::Nameless);
        is_of(&v2(0x21, 0x31, &[0; 216]), 232, Told::Nameless);
    }

    #[test]
    fn a_request_is_no_header_as_soon_as_it_cannot_be_one() {
        let methods = ["G", "GET / HTTP/1.1\r\n", "PO", "POST / HTTP/1.1\r\n", "PROXYX", "\r\nGET", "PRI * "];
        let of_this_name =
            ["PROXY /", "PROXY / HTTP/1.1\r\n", "PROXY *", "PROXY UDP4 ", "PROXY TCP4/", "PROXY UNKNOWN/"];
        for plain in methods.into_iter().chain(of_this_name) {
            assert_eq!(beginning(plain.as_bytes()), Beginning::Plain, "{plain:?}");
        }
    }

    #[test]
    fn what_is_wrong_or_has_no_end_is_refused() {
        let endless = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
        for wrong in [
            b"PROXY TCP4 203.0.113.9.1 10.0.0.1 1 2\r\n".as_slice(),
            b"PROXY TCP4 2001:db8::5 10.0.0.1 1 2\r\n",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 1 70000\r\n",
            b"PROXY UNKNOWN\rx",
            b"PROXY TCP4 203.0.113.9 10.0.0.1 1 2\rx",
            &endless,
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x44, &[0; 12]),
            &v2(0x21, 0x11, &vec![0; BYTES_MAX])[..20],
        ] {
            assert_eq!(beginning(wrong), Beginning::Malformed, "{}", wrong.escape_ascii());
        }
    }
}
