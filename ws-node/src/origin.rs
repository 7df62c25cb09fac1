//! Which pages may open a socket (RFC 6455 §10.2). Only browsers say which page it is; whoever says nothing is no page
//! of somebody else's.

use http::{HeaderMap, header};

/// The list of `ALLOWED_ORIGINS`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins(Vec<String>);

impl Origins {
    /// Reads a list such as `https://chat.example.com, https://*.example.org`. A `*` stands for one or more labels.
    ///
    /// # Errors
    /// What an entry must be, if one is not that.
    pub fn parse(list: &str) -> Result<Self, String> {
        let origins = list.split(',').map(|one| one.trim().to_lowercase()).collect::<Vec<_>>();
        match origins.iter().all(|one| is_origin(one)) {
            true => Ok(Self(origins)),
            false => Err("must be origins such as https://chat.example.com or https://*.example.com".into()),
        }
    }

    /// Whether a request may open a socket.
    pub fn allow(&self, headers: &HeaderMap) -> bool {
        let mut named = headers.get_all(header::ORIGIN).iter();
        let Some(first) = named.next() else { return true };
        // A browser names one. More are somebody's attempt.
        named.next().is_none()
            && first.to_str().is_ok_and(|origin| {
                let origin = origin.to_lowercase();
                self.0.iter().any(|allowed| matches(allowed, &origin))
            })
    }
}

/// Scheme, host and perhaps a port, as browsers serialise it (RFC 6454 §6.2).
fn is_origin(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once("://") else { return text == "null" };
    let host = rest.strip_prefix("*.").unwrap_or(rest);
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-.:[]".contains(c);
    !scheme.is_empty() && !host.is_empty() && scheme.chars().all(plain) && host.chars().all(plain)
}

fn matches(allowed: &str, origin: &str) -> bool {
    match allowed.split_once("*.") {
        None => allowed == origin,
        Some((scheme, domain)) => {
            let labels = origin.strip_prefix(scheme).and_then(|rest| rest.strip_suffix(domain));
            labels.is_some_and(|labels| {
                labels.len() > 1 && labels.ends_with('.') && !labels.contains([':', '/'])
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_listed_pages_may_connect_and_whoever_is_no_page() {
        let origins =
            Origins::parse("https://chat.example.com, http://localhost:3000,https://*.Example.org").unwrap();
        let allowed = |named: &[&str]| {
            let mut headers = HeaderMap::new();
            for origin in named {
                headers.append(header::ORIGIN, origin.parse().unwrap());
            }
            origins.allow(&headers)
        };
        for good in [
            "https://chat.example.com",
            "HTTPS://Chat.example.com",
            "http://localhost:3000",
            "https://a.example.org",
            "https://a.b.example.org",
        ] {
            assert!(allowed(&[good]), "{good}");
        }
        assert!(allowed(&[]), "no page at all");
        for bad in [
            "http://chat.example.com",
            "https://chat.example.com:444",
            "https://chat.example.com.evil.example",
            "https://evilexample.org",
            "https://example.org",
            "https://.example.org",
            "https://evil.example:1/.example.org",
            "null",
            "",
        ] {
            assert!(!allowed(&[bad]), "{bad}");
        }
        assert!(!allowed(&["https://chat.example.com", "https://evil.example"]), "one of two");
    }

    #[test]
    fn a_list_of_something_else_is_refused() {
        for wrong in [
            "",
            "chat.example.com",
            "https://",
            "https://a/b",
            "https://a,",
            "*",
            "https://*",
            "https://a*.b",
        ] {
            assert!(Origins::parse(wrong).is_err(), "{wrong}");
        }
        assert!(Origins::parse("null").is_ok());
    }
}
