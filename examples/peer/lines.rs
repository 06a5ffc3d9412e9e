//! Standard input as messages: each line is one. Read on a thread of its own, in batches, each handed on when it
//! is full or nothing more is there to be read at once.

use std::io::{self, BufRead as _, BufReader, Read};

use bytes::Bytes;
use posthouse::protocol::limit::MAX_BODY_BYTES;
use tokio::sync::mpsc;

/// Messages in a batch: one wait for the disk each.
pub(crate) const BATCH_MESSAGES: usize = 256;

/// Bytes after which a batch is full.
pub(crate) const BATCH_BYTES: usize = 1 << 20;

/// Batches that may wait for whoever sends them.
const BATCHES: usize = 2;

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 << 10;

/// Why no more lines come.
#[derive(Debug)]
pub(crate) enum LineFault {
    /// This line, counted from 1, is longer than a message may be.
    TooLong(u64),
    /// Standard input cannot be read.
    Unreadable(io::Error),
}

/// The lines of standard input, in batches. The thread ends with the input or the process.
pub(crate) fn standard_input() -> mpsc::Receiver<Result<Vec<Bytes>, LineFault>> {
    let (batches, read) = mpsc::channel(BATCHES);
    std::thread::spawn(move || split(io::stdin(), |batch| batches.blocking_send(batch).is_ok()));
    read
}

/// Splits `input` into lines and gives them to `emit` until that wants no more.
fn split(input: impl Read, mut emit: impl FnMut(Result<Vec<Bytes>, LineFault>) -> bool) {
    let mut input = BufReader::with_capacity(BUFFER_BYTES, input);
    let (mut batch, mut bytes) = (Vec::new(), 0);
    for number in 1.. {
        match next(&mut input) {
            Ok(Some(line)) if line.len() > MAX_BODY_BYTES => {
                let _ = (batch.is_empty() || emit(Ok(batch))) && emit(Err(LineFault::TooLong(number)));
                return;
            }
            Ok(Some(line)) => {
                bytes += line.len();
                batch.push(line);
            }
            Ok(None) => {
                let _ = batch.is_empty() || emit(Ok(batch));
                return;
            }
            Err(error) => {
                let _ = (batch.is_empty() || emit(Ok(batch))) && emit(Err(LineFault::Unreadable(error)));
                return;
            }
        }
        let full = batch.len() >= BATCH_MESSAGES || bytes >= BATCH_BYTES;
        if full || !input.buffer().contains(&b'\n') {
            if !emit(Ok(std::mem::take(&mut batch))) {
                return;
            }
            bytes = 0;
        }
    }
}

/// The next line without its line feed; one too long is given as far as it is certain to be so.
fn next(input: &mut BufReader<impl Read>) -> io::Result<Option<Bytes>> {
    let mut line = Vec::new();
    input.take(MAX_BODY_BYTES as u64 + 1).read_until(b'\n', &mut line)?;
    if line.is_empty() {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    Ok(Some(line.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(input: &[u8]) -> (Vec<Bytes>, Vec<usize>, Option<LineFault>) {
        let (mut lines, mut batches, mut fault) = (Vec::new(), Vec::new(), None);
        split(input, |batch| {
            match batch {
                Ok(batch) => {
                    batches.push(batch.len());
                    lines.extend(batch);
                }
                Err(error) => fault = Some(error),
            }
            true
        });
        (lines, batches, fault)
    }

    #[test]
    fn a_line_is_its_bytes_without_the_line_feed() {
        let (lines, _, fault) = read(b"one\r\n\n\xff\0\nlast");
        assert_eq!(lines, [&b"one\r"[..], b"", b"\xff\0", b"last"]);
        assert!(fault.is_none());
        assert!(read(b"").0.is_empty());
    }

    #[test]
    fn a_line_at_the_limit_is_taken_and_one_above_it_is_named() {
        let mut input = vec![b'x'; MAX_BODY_BYTES];
        input.extend(b"\nshort\n");
        assert_eq!(read(&input).0.len(), 2);
        input.extend(vec![b'y'; MAX_BODY_BYTES + 1]);
        let (lines, _, fault) = read(&input);
        assert_eq!(lines.len(), 2);
        assert!(matches!(fault, Some(LineFault::TooLong(3))));
    }

    #[test]
    fn many_lines_come_in_full_batches() {
        let (lines, batches, _) = read(&b"x\n".repeat(600));
        assert_eq!((lines.len(), batches), (600, vec![256, 256, 88]));
    }
}
