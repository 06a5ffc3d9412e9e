//! Every interleaving of a small case: each state that can come about is visited once.
//!
//! A state is told from another by all that it is made of. From each one everything is tried that could happen
//! next, and from each the end has to be within reach, with an outcome for every message.

use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt;
use std::hash::Hasher as _;

use super::chance::{Chance, Script};
use super::plan::Plan;
use super::run_guarded;
use super::world::World;

/// What was found.
pub(crate) struct Found {
    pub(crate) states: usize,
    pub(crate) ways: usize,
    /// States in which nothing is left to do.
    pub(crate) ends: usize,
    /// All states were visited.
    pub(crate) complete: bool,
}

/// How a state was reached for the first time.
struct Origin {
    from: u32,
    choices: Vec<u8>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = if self.complete { "all" } else { "the first" };
        write!(f, "{all} {} states, {} ways between them, {} ends", self.states, self.ways, self.ends)
    }
}

struct Search {
    plan: Plan,
    numbers: HashMap<u64, u32>,
    origins: Vec<Origin>,
    /// From where to where.
    ways: Vec<(u32, u32)>,
    ends: Vec<u32>,
    open: Vec<(u32, World)>,
}

/// Visits at most so many states. An error is a broken promise, and how it came to that.
pub(crate) fn search(plan: Plan, most: usize) -> Result<Found, String> {
    let start = World::of(plan.clone(), Chance::Scripted(Script::default()), false);
    let mut search =
        Search { plan, numbers: HashMap::new(), origins: vec![], ways: vec![], ends: vec![], open: vec![] };
    search.visit(0, vec![], start);
    while let Some((number, world)) = search.open.pop() {
        search.expand(number, &world)?;
        if search.origins.len() > most {
            break;
        }
    }
    let complete = search.open.is_empty();
    if complete {
        search.reach_the_end()?;
    }
    let Search { origins, ways, ends, .. } = search;
    Ok(Found { states: origins.len(), ways: ways.len(), ends: ends.len(), complete })
}

impl Search {
    /// Tries all that could happen in this state.
    fn expand(&mut self, number: u32, world: &World) -> Result<(), String> {
        let mut choices = vec![];
        loop {
            let mut next = world.clone();
            next.chance.follow(choices.clone());
            let broken = run_guarded(|| next.turn());
            let bounds = next.chance.bounds();
            let mut made = choices;
            made.resize(bounds.len(), 0);
            if let Err(broken) = broken {
                return Err(self.tell(number, &made, &broken));
            }
            self.visit(number, made.clone(), next);
            // The next choices in their order: the last that can still be another one is.
            loop {
                let Some(last) = made.pop() else { return Ok(()) };
                if last + 1 < bounds[made.len()] {
                    made.push(last + 1);
                    break;
                }
            }
            choices = made;
        }
    }

    fn visit(&mut self, from: u32, choices: Vec<usize>, world: World) {
        let next = self.origins.len() as u32;
        let number = match self.numbers.entry(digest(&world)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                new.insert(next);
                self.origins.push(Origin { from, choices: choices.into_iter().map(|choice| choice as u8).collect() });
                match world.is_over() {
                    true => self.ends.push(next),
                    false => self.open.push((next, world)),
                }
                next
            }
        };
        if number != from {
            self.ways.push((from, number));
        }
    }

    /// Whether each state has a way to an end.
    fn reach_the_end(&mut self) -> Result<(), String> {
        self.ways.sort_unstable_by_key(|(_, to)| *to);
        let mut reaches = vec![false; self.origins.len()];
        let mut todo = self.ends.clone();
        while let Some(state) = todo.pop() {
            if !std::mem::replace(&mut reaches[state as usize], true) {
                let first = self.ways.partition_point(|(_, to)| *to < state);
                let before = self.ways[first..].iter().take_while(|(_, to)| *to == state);
                todo.extend(before.map(|(from, _)| *from).filter(|from| !reaches[*from as usize]));
            }
        }
        match reaches.iter().position(|reaches| !reaches) {
            Some(stuck) => Err(self.tell(stuck as u32, &[], "nothing that can happen from here leads to the end")),
            None => Ok(()),
        }
    }

    /// What happened on the way to this state, and what was broken then.
    fn tell(&self, state: u32, last: &[usize], broken: &str) -> String {
        let mut turns = vec![last.to_vec()];
        let mut at = state;
        while at != 0 {
            let origin = &self.origins[at as usize];
            turns.push(origin.choices.iter().map(|choice| usize::from(*choice)).collect());
            at = origin.from;
        }
        let mut world = World::of(self.plan.clone(), Chance::Scripted(Script::default()), true);
        for choices in turns.into_iter().rev() {
            world.chance.follow(choices);
            drop(run_guarded(|| world.turn()));
        }
        format!("{}\n{broken}", world.trace().join("\n"))
    }
}

/// What a state is made of, as a number.
fn digest(world: &World) -> u64 {
    let mut sum = DefaultHasher::new();
    sum.write(format!("{world:?}").as_bytes());
    sum.finish()
}
