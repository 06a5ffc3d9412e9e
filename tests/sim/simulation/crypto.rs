//! TLS without any chance but the seed's: randomness and key exchange come from a source of the thread's own.
//!
//! The key exchange is no secret at all, only the same on both sides: nobody listens here, and it costs nothing.

use std::cell::RefCell;
use std::sync::Arc;

use posthouse::time::SharedClock;
use posthouse::transport::Determinism;
use ring::digest::{SHA256, digest};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::{Error, NamedGroup};

use super::chance::Chance;

thread_local! {
    static CHANCE: RefCell<Chance> = const { RefCell::new(Chance::new(0)) };
}

/// All TLS on this thread draws on this from now on.
pub(crate) fn set_chance(chance: Chance) {
    CHANCE.set(chance);
}

fn fill(bytes: &mut [u8]) {
    CHANCE.with_borrow_mut(|chance| chance.fill(bytes));
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes);
        Ok(())
    }
}

#[derive(Debug)]
struct Open;

impl SupportedKxGroup for Open {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = [0; 32];
        fill(&mut share);
        Ok(Box::new(OpenShare(share)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct OpenShare([u8; 32]);

impl ActiveKeyExchange for OpenShare {
    fn complete(self: Box<Self>, theirs: &[u8]) -> Result<SharedSecret, Error> {
        let mut both = [&self.0[..], theirs];
        both.sort_unstable();
        Ok(SharedSecret::from(digest(&SHA256, &both.concat()).as_ref()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// What makes a relay's or a client's TLS predictable.
pub(crate) fn determinism(clock: SharedClock) -> Determinism {
    let provider =
        CryptoProvider { secure_random: &Seeded, kx_groups: vec![&Open], ..rustls::crypto::ring::default_provider() };
    Determinism { provider: Arc::new(provider), clock }
}
