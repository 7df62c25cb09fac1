//! How the two ends of a link know each other: both have read the secret of the ring from the store, and neither sends
//! it. Each proves it with an HMAC (RFC 2104, SHA-256) over who they are and both their nonces, and says which end it is,
//! so that neither's proof can be given back to it.

use aws_lc_rs::hmac::{HMAC_SHA256, Key, sign, verify};
use roost_proto::ids::Sid;

/// Which end proves itself.
#[derive(Debug, Clone, Copy)]
pub(super) enum End {
    Dialled,
    Accepted,
}

/// What both ends know of one link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meeting {
    pub from: Sid,
    pub to: Sid,
    pub nonce_of_from: String,
    pub nonce_of_to: String,
}

pub(super) fn nonce() -> String {
    format!("{:032x}", rand::random::<u128>())
}

impl Meeting {
    fn text(&self, end: End) -> String {
        let Self { from, to, nonce_of_from, nonce_of_to } = self;
        format!("roost-link 1 {end:?} {from} {to} {nonce_of_from} {nonce_of_to}")
    }

    /// In hexadecimal.
    pub(super) fn proof(&self, secret: &str, end: End) -> String {
        let key = Key::new(HMAC_SHA256, secret.as_bytes());
        sign(&key, self.text(end).as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// In constant time.
    pub(super) fn is_proven(&self, secret: &str, end: End, proof: &str) -> bool {
        let key = Key::new(HMAC_SHA256, secret.as_bytes());
        let byte = |at: usize| u8::from_str_radix(proof.get(at..at + 2)?, 16).ok();
        let bytes: Option<Vec<u8>> = (0..proof.len()).step_by(2).map(byte).collect();
        bytes.is_some_and(|tag| verify(&key, self.text(end).as_bytes(), &tag).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use roost_proto::ids::NodeId;

    fn meeting() -> Meeting {
        let sid = |name| Sid::new(&NodeId::new(name).unwrap(), 1, 1);
        let (nonce_of_from, nonce_of_to) = ("a".into(), "b".into());
        Meeting { from: sid("ws-1"), to: sid("ws-2"), nonce_of_from, nonce_of_to }
    }

    #[test]
    fn a_proof_is_of_one_meeting_one_end_and_one_secret() {
        let meeting = meeting();
        let proof = meeting.proof("secret", End::Dialled);
        assert!(meeting.is_proven("secret", End::Dialled, &proof));
        assert!(!meeting.is_proven("secret", End::Accepted, &proof), "given back");
        assert!(!meeting.is_proven("another", End::Dialled, &proof));
        let later = Meeting { nonce_of_to: nonce(), ..meeting.clone() };
        assert!(!later.is_proven("secret", End::Dialled, &proof), "heard on the wire before");
        let elsewhere = Meeting { to: meeting.from.clone(), ..meeting.clone() };
        assert!(!elsewhere.is_proven("secret", End::Dialled, &proof));
        for bad in ["", "0", "zz", "ä", &proof[2..], &format!("{proof}00")] {
            assert!(!meeting.is_proven("secret", End::Dialled, bad), "{bad}");
        }
    }
}
