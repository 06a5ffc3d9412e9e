//! A conversation on a terminal: lines above, and below them the one that is typed. The ticks of a line that can still
//! be seen change in its place.
//!
//! [`Typing`] reads and draws; [`Screen`] is where all else prints meanwhile, in the order of its calls. Each line is
//! counted in rows, so that it is known how far up it stands. What the counting cannot follow (another width, a line
//! far up) gets its ticks on a line of its own.

use std::collections::HashMap;
use std::io::{self, Write as _};

use rustyline_async::{Readline, ReadlineError, ReadlineEvent, SharedWriter};
use unicode_width::UnicodeWidthChar as _;

/// Room for the ticks at the beginning of a line.
const TICK_COLUMNS: usize = 3;

/// What was typed.
#[derive(Debug)]
pub(crate) enum Typed {
    /// A line, and what the terminal showed.
    Line { line: String, shown: String },
    /// Ctrl-D.
    End,
    /// Ctrl-C.
    Stop,
}

/// The line that is being typed. The terminal is as it was once this is dropped.
pub(crate) struct Typing {
    readline: Readline,
    prompt: &'static str,
}

impl Typing {
    /// What was typed next. Draws first what was printed since, so it has to be asked for again and again, and the order
    /// of lines is that in which they were printed. Cancel-safe.
    pub(crate) async fn next(&mut self) -> io::Result<Typed> {
        self.end()?;
        self.prompt(self.prompt)?;
        match self.readline.readline().await.map_err(unreadable)? {
            ReadlineEvent::Line(line) => {
                self.readline.add_history_entry(line.clone());
                Ok(Typed::Line { shown: format!("{}{line}", self.prompt), line })
            }
            ReadlineEvent::Eof => Ok(Typed::End),
            ReadlineEvent::Interrupted => Ok(Typed::Stop),
        }
    }

    /// What stands before the line.
    pub(crate) fn prompt(&mut self, prompt: &'static str) -> io::Result<()> {
        self.prompt = prompt;
        self.readline.update_prompt(prompt).map_err(unreadable)
    }

    /// Draws all that was printed, and takes the line away.
    pub(crate) fn end(&mut self) -> io::Result<()> {
        self.readline.flush().map_err(unreadable)
    }
}

fn unreadable(error: ReadlineError) -> io::Error {
    match error {
        ReadlineError::IO(error) => error,
        closed => io::Error::other(closed),
    }
}

/// What stands above the line that is typed.
pub(crate) struct Screen {
    writer: SharedWriter,
    rows: Rows,
    /// Rows that the library leaves of a typed line of several: they go with what is printed next.
    left_over: usize,
}

impl std::fmt::Debug for Screen {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Screen").field("rows", &self.rows).finish_non_exhaustive()
    }
}

/// Takes the terminal for a conversation.
pub(crate) fn open(prompt: &'static str) -> io::Result<(Typing, Screen)> {
    let (mut readline, writer) = Readline::new(prompt.to_owned()).map_err(unreadable)?;
    // It is printed with its time and its ticks instead.
    readline.should_print_line_on(false, false);
    Ok((Typing { readline, prompt }, Screen { writer, rows: Rows::default(), left_over: 0 }))
}

impl Screen {
    /// Prints some words.
    pub(crate) fn line(&mut self, words: &str) -> io::Result<()> {
        let size = crossterm::terminal::size()?;
        for line in words.lines() {
            self.rows.add(line, size, None);
            self.write(&format!("{line}\n"))?;
        }
        Ok(())
    }

    /// Prints what was said, behind its ticks, which may be changed later.
    pub(crate) fn said(&mut self, id: &str, ticks: &str, words: &str) -> io::Result<()> {
        let line = format!("{ticks:TICK_COLUMNS$}{words}");
        self.rows.add(&line, crossterm::terminal::size()?, Some(id));
        self.write(&format!("{line}\n"))
    }

    /// Changes the ticks of a line; false if it cannot be seen any more.
    pub(crate) fn mark(&mut self, id: &str, ticks: &str) -> io::Result<bool> {
        let Some(up) = self.rows.up_to(id, crossterm::terminal::size()?) else { return Ok(false) };
        // Back by one row less: the line feed that ends what is printed does the rest.
        let down = if up > 1 { format!("\x1b[{}B", up - 1) } else { String::new() };
        self.write(&format!("\x1b[{up}A\r{ticks:TICK_COLUMNS$}{down}\n"))?;
        Ok(true)
    }

    /// A line was typed, and showed this.
    pub(crate) fn typed(&mut self, shown: &str) -> io::Result<()> {
        let (columns, _) = crossterm::terminal::size()?;
        let left_over = height(shown, columns.into()) - 1;
        if left_over > 0 {
            self.left_over += left_over;
            // So many they are if the cursor was at the end. If not, no ticks may go to a wrong line.
            self.rows.began.clear();
        }
        Ok(())
    }

    /// The line that is typed moved down by a row.
    pub(crate) fn moved(&mut self) {
        self.rows.printed += 1;
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        let erase = match std::mem::take(&mut self.left_over) {
            0 => String::new(),
            rows => format!("\x1b[{rows}A\x1b[J"),
        };
        self.writer.write_all((erase + text).as_bytes())
    }
}

/// Which row each line began in, counted from the first that was printed.
#[derive(Debug, Default)]
struct Rows {
    printed: usize,
    columns: u16,
    began: HashMap<String, usize>,
}

impl Rows {
    fn add(&mut self, text: &str, (columns, rows): (u16, u16), name: Option<&str>) {
        self.follow(columns);
        let seen_from = self.printed.saturating_sub(rows.into());
        self.began.retain(|_, row| *row >= seen_from);
        if let Some(name) = name {
            self.began.insert(name.to_owned(), self.printed);
        }
        self.printed += height(text, columns.into());
    }

    /// How many rows above the typed line it stands. That line has half of the screen to itself, however long it is.
    fn up_to(&mut self, name: &str, (columns, rows): (u16, u16)) -> Option<usize> {
        self.follow(columns);
        let up = self.printed - self.began.get(name)?;
        (up <= usize::from(rows / 2)).then_some(up)
    }

    /// With another width the terminal broke all lines anew.
    fn follow(&mut self, columns: u16) {
        if std::mem::replace(&mut self.columns, columns) != columns {
            self.began.clear();
        }
    }
}

/// Rows that a line takes on a terminal. A character that does not fit into a row goes into the next as a whole.
fn height(text: &str, columns: usize) -> usize {
    let (mut rows, mut used) = (1, 0);
    for width in text.chars().filter_map(|c| c.width()) {
        if used + width > columns {
            (rows, used) = (rows + 1, 0);
        }
        used += width;
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_takes_as_many_rows_as_its_characters_need() {
        assert_eq!(["", "12345", "123456", "1234567890"].map(|text| height(text, 5)), [1, 1, 2, 2]);
        assert_eq!(height("1234字", 5), 2, "a wide one is not cut in two");
        assert_eq!(height("e\u{301}e\u{301}e\u{301}", 3), 1, "an accent takes no room");
    }

    #[test]
    fn a_line_is_found_as_long_as_it_can_be_seen_and_the_width_stays() {
        let mut rows = Rows::default();
        rows.add("first", (10, 8), Some("first"));
        rows.add("of two rows", (10, 8), Some("second"));
        assert_eq!((rows.up_to("first", (10, 8)), rows.up_to("second", (10, 8))), (Some(3), Some(2)));
        rows.add("x", (10, 8), None);
        rows.add("x", (10, 8), None);
        assert_eq!((rows.up_to("first", (10, 8)), rows.up_to("second", (10, 8))), (None, Some(4)));
        assert_eq!(rows.up_to("second", (11, 8)), None);
        assert_eq!(rows.up_to("second", (10, 8)), None);
    }
}
