//! What was said with one other peer, as `peer chat` saw it: a file of JSON lines in the peer's directory, for its
//! owner alone. It is there to be read again; nothing about delivery depends on it.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use posthouse::id::{MessageId, PeerId};
use posthouse::protocol::Outcome;
use serde::{Deserialize, Serialize};

/// The directory below the peer's.
const DIRECTORY: &str = "chat";
/// What is remembered: the latest so many.
const KEPT: usize = 500;
/// Of a text so much is kept.
const TEXT_CHARS: usize = 4_000;
/// The file is written anew with what is kept once it is longer than this.
const MOST_BYTES: u64 = 4 << 20;

/// How far a message is, as far as the conversation heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mark {
    Queued,
    Accepted,
    Delivered,
    Expired,
    Rejected,
}

impl From<&Outcome> for Mark {
    fn from(outcome: &Outcome) -> Self {
        match outcome {
            Outcome::Delivered => Self::Delivered,
            Outcome::Expired { .. } => Self::Expired,
            Outcome::Rejected { .. } => Self::Rejected,
        }
    }
}

/// One message of the conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Said {
    pub(crate) id: String,
    /// Unix ms, by the clock of who wrote it.
    pub(crate) at: u64,
    pub(crate) text: String,
    /// How far it is; none of what the other one said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mark: Option<Mark>,
}

/// A line of the file: a message, or news of one above it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Line {
    Said(Said),
    News { id: String, mark: Mark },
}

/// See the head of this file.
#[derive(Debug)]
pub(crate) struct History {
    path: PathBuf,
    file: File,
    bytes: u64,
    said: VecDeque<Said>,
}

impl History {
    /// Opens what was said with `peer`. Lines that make no sense, as after a power cut, are left out.
    pub(crate) fn open(data: &Path, peer: PeerId) -> io::Result<Self> {
        let directory = data.join(DIRECTORY);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let path = directory.join(format!("{peer}.jsonl"));
        let mut said = VecDeque::new();
        match File::open(&path) {
            Ok(file) => {
                for line in BufReader::new(file).split(b'\n') {
                    match serde_json::from_slice(&line?) {
                        Ok(Line::Said(message)) => remember(&mut said, message),
                        Ok(Line::News { id, mark }) => note(&mut said, &id, mark),
                        Err(_) => {}
                    }
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        // Pages of older messages were written down after newer ones.
        said.make_contiguous().sort_by_key(|said| said.at);
        let (file, bytes) = append_to(&path)?;
        Ok(Self { path, file, bytes, said })
    }

    /// The latest `most`, in order.
    pub(crate) fn latest(&self, most: usize) -> impl Iterator<Item = &Said> {
        self.said.iter().skip(self.said.len().saturating_sub(most))
    }

    /// A message was written or shown; one that is known already changes nothing.
    pub(crate) fn add(&mut self, mut message: Said) -> io::Result<()> {
        if self.said.iter().any(|said| said.id == message.id) {
            return Ok(());
        }
        if let Some((end, _)) = message.text.char_indices().nth(TEXT_CHARS) {
            message.text.truncate(end);
            message.text.push('…');
        }
        remember(&mut self.said, message.clone());
        self.append(&Line::Said(message))
    }

    /// There is news of a message. Of one that is not known there is nothing to remember.
    pub(crate) fn mark(&mut self, id: MessageId, mark: Mark) -> io::Result<()> {
        let id = id.to_string();
        if !self.said.iter().any(|said| said.id == id && said.mark != Some(mark)) {
            return Ok(());
        }
        note(&mut self.said, &id, mark);
        self.append(&Line::News { id, mark })
    }

    fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.file.write_all(&text)?;
        self.bytes += text.len() as u64;
        if self.bytes > MOST_BYTES { self.write_anew() } else { Ok(()) }
    }

    /// At any time the old file is there or the new one, whole.
    fn write_anew(&mut self) -> io::Result<()> {
        let new = self.path.with_extension("new");
        let mut text = Vec::new();
        for said in &self.said {
            serde_json::to_writer(&mut text, said)?;
            text.push(b'\n');
        }
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(&new, &self.path)?;
        (self.file, self.bytes) = append_to(&self.path)?;
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options().read(true).append(true).create(true).mode(0o600).open(path)?;
    let bytes = file.metadata()?.len();
    // Of a line that was cut off nothing is taken for the beginning of the next.
    file.write_all(b"\n")?;
    Ok((file, bytes + 1))
}

fn remember(said: &mut VecDeque<Said>, message: Said) {
    said.push_back(message);
    if said.len() > KEPT {
        said.pop_front();
    }
}

fn note(said: &mut VecDeque<Said>, id: &str, mark: Mark) {
    if let Some(message) = said.iter_mut().rev().find(|said| said.id == id) {
        message.mark = Some(mark);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const PEER: PeerId = PeerId::from_bytes([7; 32]);

    fn id(number: u8) -> MessageId {
        MessageId::new(1, &[number; 10])
    }

    fn own(number: u8, text: &str) -> Said {
        Said { id: id(number).to_string(), at: 1, text: text.to_owned(), mark: Some(Mark::Queued) }
    }

    fn texts(history: &History, most: usize) -> Vec<(&str, Option<Mark>)> {
        history.latest(most).map(|said| (said.text.as_str(), said.mark)).collect()
    }

    #[test]
    fn what_was_said_and_how_far_it_was_is_known_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path(), PEER).unwrap();
        history.add(own(1, "one")).unwrap();
        history.add(Said { mark: None, ..own(2, "two") }).unwrap();
        history.add(own(1, "one again")).unwrap();
        history.mark(id(1), Mark::Accepted).unwrap();
        history.mark(id(1), Mark::Delivered).unwrap();
        history.mark(id(9), Mark::Delivered).unwrap();
        drop(history);
        let history = History::open(directory.path(), PEER).unwrap();
        assert_eq!(texts(&history, 9), [("one", Some(Mark::Delivered)), ("two", None)]);
        assert_eq!(texts(&history, 1), [("two", None)]);
        assert_eq!(fs::metadata(&history.path).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn messages_of_an_older_page_stand_before_newer_ones_the_next_time() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path(), PEER).unwrap();
        for (number, at) in [(1, 30), (2, 40), (3, 10), (4, 20)] {
            history.add(Said { at, ..own(number, &at.to_string()) }).unwrap();
        }
        drop(history);
        let history = History::open(directory.path(), PEER).unwrap();
        assert_eq!(texts(&history, 9).iter().map(|(text, _)| *text).collect::<Vec<_>>(), ["10", "20", "30", "40"]);
    }

    #[test]
    fn a_line_that_was_cut_off_spoils_no_other() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path(), PEER).unwrap();
        history.add(own(1, "one")).unwrap();
        history.file.write_all(br#"{"id":"cut o"#).unwrap();
        drop(history);
        History::open(directory.path(), PEER).unwrap().add(own(2, "two")).unwrap();
        let history = History::open(directory.path(), PEER).unwrap();
        assert_eq!(texts(&history, 9), [("one", Some(Mark::Queued)), ("two", Some(Mark::Queued))]);
    }

    #[test]
    fn a_long_conversation_is_kept_within_bounds() {
        let directory = tempfile::tempdir().unwrap();
        let mut history = History::open(directory.path(), PEER).unwrap();
        let long = "ä".repeat(2 * TEXT_CHARS);
        for number in 0..=KEPT {
            history.add(Said { id: number.to_string(), ..own(0, &long) }).unwrap();
        }
        assert_eq!(history.latest(2 * KEPT).count(), KEPT);
        assert_eq!(history.latest(1).next().unwrap().text.chars().count(), TEXT_CHARS + 1);
        assert!(fs::metadata(&history.path).unwrap().len() <= MOST_BYTES);
        let kept = History::open(directory.path(), PEER).unwrap();
        assert!(kept.latest(KEPT).eq(history.latest(KEPT)));
    }
}
