//! How numbers, times and strangers' texts look to a person. Pure: no clock is read here.

use std::time::{Duration, UNIX_EPOCH};

use indicatif::HumanBytes;
use posthouse::protocol::{Policy, Senders, Status};
use posthouse::time::UnixMillis;

/// A count with its noun.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Whose messages are taken.
pub(crate) fn policy(policy: &Policy) -> String {
    let general = match policy.senders {
        Senders::Anyone => "messages of anyone are taken",
        Senders::Contacts => "messages of contacts alone are taken",
    };
    let listed = [("allowed", &policy.allowed), ("blocked", &policy.blocked)].map(|(word, peers)| {
        let lines = peers.iter().map(|peer| format!("\n{word}  {peer}"));
        lines.collect::<String>()
    });
    general.to_owned() + &listed.concat()
}

/// Bytes as a person reads them.
pub(crate) fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

/// How long ago something was, roughly. What another clock calls the future is now.
pub(crate) fn age(at: UnixMillis, now: UnixMillis) -> String {
    let seconds = at.until(now).as_secs();
    match seconds {
        0..5 => "just now".to_owned(),
        5..120 => format!("{seconds} s ago"),
        120..7_200 => format!("{} min ago", seconds / 60),
        7_200..172_800 => format!("{} h ago", seconds / 3_600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}

/// The last time that a date of four digits can tell, in ms: a sender may claim any.
const END_OF_9999: u64 = 253_402_300_799_999;

/// The time of day, UTC: `14:03:22`, with the date before it unless that is today's.
pub(crate) fn time(at: UnixMillis, now: UnixMillis) -> String {
    let date = |at: UnixMillis| {
        let since = UNIX_EPOCH + Duration::from_millis(at.0.min(END_OF_9999));
        humantime::format_rfc3339_seconds(since).to_string().trim_end_matches('Z').replace('T', " ")
    };
    let (at, now) = (date(at), date(now));
    match (at.split_once(' '), now.split_once(' ')) {
        (Some((day, time)), Some((today, _))) if day == today => time.to_owned(),
        _ => at,
    }
}

/// Whether the character turns the direction of the text behind it (Unicode Bidi_Control, UAX #9).
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A body as one line that does nothing to a terminal: what a stranger sends is not to move the cursor.
pub(crate) fn printable(body: &[u8]) -> String {
    let mut shown = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || is_direction(c) { shown.extend(c.escape_default()) } else { shown.push(c) }
        }
        for byte in chunk.invalid() {
            shown.push_str(&format!("\\x{byte:02x}"));
        }
    }
    shown
}

/// The first characters of a body, to know it again.
pub(crate) fn preview(body: &[u8]) -> String {
    const CHARS: usize = 60;
    // No character takes more than four bytes.
    let start = body.get(..CHARS * 4).unwrap_or(body);
    let text = printable(start);
    let mut shown: String = text.chars().take(CHARS).collect();
    if shown.len() < text.len() || start.len() < body.len() {
        shown.push('…');
    }
    shown
}

/// What waits in a mailbox, as a table.
pub(crate) fn status(status: &Status, now: UnixMillis) -> String {
    if status.messages == 0 {
        return "nothing waits".to_owned();
    }
    let mut lines = vec![format!("{} ({})", waiting(status.messages), size(status.bytes))];
    lines.push(format!("  {:>9} {:>11}  {}", "messages", "size", "from"));
    for sender in &status.senders {
        lines.push(format!("  {:>9} {:>11}  {}", sender.messages, size(sender.bytes), sender.sender));
    }
    if status.more {
        lines.push("  and others with fewer".to_owned());
    }
    if let (Some(oldest), Some(newest)) = (status.oldest_ms, status.newest_ms) {
        let ago = |at| age(UnixMillis(at), now);
        lines.push(format!("  the oldest came {}, the newest {}", ago(oldest), ago(newest)));
    }
    lines.join("\n")
}

/// That so many messages wait.
pub(crate) fn waiting(messages: u64) -> String {
    format!("{} wait{}", count(messages, "message"), if messages == 1 { "s" } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_are_rough() {
        assert_eq!([size(0), size(1023), size(1024), size(3 << 20)], ["0 B", "1023 B", "1.00 KiB", "3.00 MiB"]);
        let ago = |seconds: u64| age(UnixMillis(1_000), UnixMillis(1_000 + seconds * 1_000));
        assert_eq!([ago(0), ago(119), ago(3_600 * 3)], ["just now", "119 s ago", "3 h ago"]);
        assert_eq!(age(UnixMillis(9_000), UnixMillis(0)), "just now");
    }

    #[test]
    fn a_time_of_another_day_has_its_date() {
        let at = UnixMillis(1_700_000_000_000);
        assert_eq!(time(at, at), "22:13:20");
        assert_eq!(time(at, UnixMillis(at.0 + 86_400_000)), "2023-11-14 22:13:20");
        assert_eq!(time(UnixMillis(u64::MAX), at), "9999-12-31 23:59:59");
    }

    #[test]
    fn a_body_cannot_move_the_cursor() {
        assert_eq!(printable("\u{202e}txt.exe\u{2066}".as_bytes()), "\\u{202e}txt.exe\\u{2066}");
        assert_eq!(printable(b"a\x1b[2J\nb\xff"), "a\\u{1b}[2J\\nb\\xff");
        assert_eq!(preview("ä".repeat(100).as_bytes()), format!("{}…", "ä".repeat(60)));
        assert_eq!(preview("ä".repeat(60).as_bytes()), "ä".repeat(60));
    }
}
