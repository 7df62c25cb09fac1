//! A bucket for each address or user that came lately, bounded in memory.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::Bucket;

/// Keys remembered at once: 65,536 × 64 bytes are 4 MiB of addresses, and 12 MiB of users with the longest names.
/// Beyond that a new one is let in unremembered: to refuse it would let anyone with many addresses lock out everyone
/// else, and the other limits hold.
const KEYS_MAX: usize = 65_536;
/// Between two sweeps of that table at least, in milliseconds: a sweep looks at every entry.
const SWEEP_EVERY_MS: u64 = 1_000;

/// The same rate for each key, on the monotonic clock.
#[derive(Debug)]
pub struct Rates<K> {
    table: Mutex<Table<K>>,
    since: Instant,
}

impl<K: Hash + Eq + Clone> Rates<K> {
    /// A `per_s` of 0 means no limit.
    pub fn new(per_s: u32, burst: u32) -> Self {
        Self { table: Mutex::new(Table::new(per_s, burst, KEYS_MAX)), since: Instant::now() }
    }

    /// Takes `cost` tokens of this key's.
    ///
    /// # Errors
    /// When there are not so many: the milliseconds until there are.
    pub fn take(&self, key: &K, cost: u32) -> Result<(), u64> {
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.table.lock().unwrap_or_else(PoisonError::into_inner).take(key, cost, now_ms)
    }
}

#[derive(Debug)]
struct Table<K> {
    per_s: u32,
    burst: u32,
    max: usize,
    buckets: HashMap<K, Bucket>,
    sweep_after_ms: u64,
}

impl<K: Hash + Eq + Clone> Table<K> {
    fn new(per_s: u32, burst: u32, max: usize) -> Self {
        Self { per_s, burst, max, buckets: HashMap::new(), sweep_after_ms: 0 }
    }

    fn take(&mut self, key: &K, cost: u32, now_ms: u64) -> Result<(), u64> {
        if self.per_s == 0 {
            return Ok(());
        }
        if let Some(bucket) = self.buckets.get_mut(key) {
            return bucket.take_many(cost, now_ms);
        }
        if self.buckets.len() >= self.max && now_ms >= self.sweep_after_ms {
            self.sweep_after_ms = now_ms + SWEEP_EVERY_MS;
            self.buckets.retain(|_, bucket| !bucket.is_full(now_ms));
        }
        if self.buckets.len() < self.max {
            let mut bucket = Bucket::new(self.per_s, self.burst);
            let taken = bucket.take_many(cost, now_ms);
            self.buckets.insert(key.clone(), bucket);
            return taken;
        }
        Ok(())
    }
}

/// What counts as one address. One customer of an IPv6 provider has a /64 (RFC 6177), so that is one; an IPv4
/// address written as IPv6 is itself.
pub fn network_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        network_of(text.parse().unwrap())
    }

    #[test]
    fn an_address_has_its_own_rate_and_a_64_counts_as_one() {
        let mut addresses = Table::new(1, 2, 10);
        assert!(addresses.take(&ip("10.0.0.1"), 1, 0).is_ok());
        assert!(addresses.take(&ip("::ffff:10.0.0.1"), 1, 0).is_ok());
        assert_eq!(addresses.take(&ip("10.0.0.1"), 1, 0), Err(1000));
        assert!(addresses.take(&ip("10.0.0.2"), 1, 0).is_ok());
        assert!(addresses.take(&ip("2001:db8::1"), 1, 0).is_ok());
        assert!(addresses.take(&ip("2001:db8::2"), 1, 0).is_ok());
        assert_eq!(addresses.take(&ip("2001:db8::3"), 1, 0), Err(1000));
        assert!(addresses.take(&ip("2001:db8:0:1::3"), 1, 0).is_ok());
    }

    #[test]
    fn the_table_of_addresses_is_bounded_and_forgets_the_idle() {
        let mut addresses = Table::new(1, 1, 3);
        for last in 1..=3 {
            assert!(addresses.take(&ip(&format!("10.0.0.{last}")), 1, 0).is_ok());
        }
        // Full, and nobody idle: let in unremembered, and those remembered are still held to their rate.
        assert!(addresses.take(&ip("10.0.0.4"), 1, 10).is_ok());
        assert!(addresses.take(&ip("10.0.0.4"), 1, 10).is_ok());
        assert_eq!(addresses.take(&ip("10.0.0.1"), 1, 10), Err(990));
        assert_eq!(addresses.buckets.len(), 3);
        // A second later all buckets are full again and make room.
        assert!(addresses.take(&ip("10.0.0.4"), 1, 2_000).is_ok());
        assert_eq!(addresses.buckets.len(), 1);
        assert_eq!(addresses.take(&ip("10.0.0.4"), 1, 2_000), Err(1000));
    }
}
