//! The only reader of the operating system's random source.
//!
//! Whatever needs chance is given an [`Entropy`], so that a simulation can give the same chance twice.

use std::fmt;
use std::sync::Arc;

/// A source of random bytes fit for keys and ids.
pub trait Entropy: Send + Sync + fmt::Debug {
    /// Fills `bytes`.
    fn fill(&self, bytes: &mut [u8]);
}

/// A source that may be shared between tasks and threads.
pub type SharedEntropy = Arc<dyn Entropy>;

impl dyn Entropy + '_ {
    /// So many random bytes.
    pub fn bytes<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.fill(&mut bytes);
        bytes
    }

    /// 64 random bits.
    pub fn word(&self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }
}

/// Small draws from a source that is asked for many bytes at once.
#[derive(Debug)]
pub struct Pool {
    source: SharedEntropy,
    bytes: [u8; 1024],
    left: usize,
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub const fn new(source: SharedEntropy) -> Self {
        Self { source, bytes: [0; 1024], left: 0 }
    }

    /// So many random bytes, each given once.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.left < N {
            self.source.fill(&mut self.bytes);
            self.left = self.bytes.len();
        }
        let start = self.left.saturating_sub(N);
        let drawn = self.bytes.get(start..self.left).and_then(|drawn| drawn.try_into().ok());
        self.left = start;
        // More than the pool holds at a time comes from its source.
        drawn.unwrap_or_else(|| self.source.bytes())
    }
}

/// The operating system's random source.
#[derive(Debug)]
pub struct SystemEntropy;

impl SystemEntropy {
    /// The source, ready to be shared.
    #[must_use]
    pub fn shared() -> SharedEntropy {
        Arc::new(Self)
    }
}

impl Entropy for SystemEntropy {
    /// # Panics
    /// If the operating system has no random source: no key or id made without one would be safe.
    #[expect(clippy::expect_used, clippy::disallowed_methods, reason = "nothing safe can be done without randomness")]
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system gives random bytes");
    }
}
