//! Chance from a seed: the same seed makes the same run, on every machine. Or from a script, where each choice
//! is named, so that all of them can be tried in turn.

#[derive(Debug, Clone)]
pub(crate) enum Chance {
    /// The state of SplitMix64: every seed is as good as any other, 0 and 1 as well.
    Seeded(u64),
    Scripted(Script),
}

/// The choices to make, and how many there were of each kind when they were made.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    choices: Vec<usize>,
    bounds: Vec<usize>,
    words: u64,
}

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        // Mixed, or the numbers of one seed would be those of its neighbour, one place on.
        Self::Seeded(mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Makes these choices next, and the first of each kind after them.
    pub(crate) fn follow(&mut self, choices: Vec<usize>) {
        if let Self::Scripted(script) = self {
            (script.choices, script.bounds) = (choices, vec![]);
        }
    }

    /// How many there were to choose from, each time.
    pub(crate) fn bounds(&self) -> Vec<usize> {
        match self {
            Self::Seeded(_) => vec![],
            Self::Scripted(script) => script.bounds.clone(),
        }
    }

    /// Any number: for names, which are no choice.
    pub(crate) fn word(&mut self) -> u64 {
        match self {
            Self::Seeded(state) => {
                *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                mix(*state)
            }
            Self::Scripted(script) => {
                script.words += 1;
                script.words
            }
        }
    }

    /// A number below `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        match self {
            Self::Seeded(_) => (self.word() % bound as u64) as usize,
            Self::Scripted(_) if bound == 1 => 0,
            Self::Scripted(script) => {
                let choice = script.choices.get(script.bounds.len()).copied().unwrap_or(0);
                script.bounds.push(bound);
                choice
            }
        }
    }

    /// True once in so many times.
    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        match self {
            Self::Seeded(_) => self.below(times) == 0,
            Self::Scripted(_) => times == 1 || self.below(2) == 1,
        }
    }

    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        match self {
            Self::Seeded(_) => self.below(100) < percent,
            Self::Scripted(_) => percent >= 100 || (percent > 0 && self.below(2) == 1),
        }
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }
}

const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}
