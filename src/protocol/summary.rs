//! What a frame is, in a line for people who watch the wire. Bodies are not in it: they are nobody's business.

use std::fmt;

use super::envelope::Envelope;
use super::frame::Frame;
use super::message::{Answer, Exception, Taken};
use super::outcome::{Outcome, Verdict};
use crate::ranges::Ranges;

impl Frame {
    /// What it says, without its name, and with ids in their short form.
    #[must_use]
    pub const fn summary(&self) -> Summary<'_> {
        Summary(self)
    }
}

/// See [`Frame::summary`].
#[derive(Debug, Clone, Copy)]
pub struct Summary<'a>(&'a Frame);

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Frame::MsgR(message) => {
                write!(f, "#{} {}", message.request, Letter(&message.envelope, message.signature.is_some()))
            }
            Frame::MsgN(message) => {
                write!(f, "seq {} {}", message.seq, Letter(&message.envelope, message.signature.is_some()))?;
                if message.attempt > 1 { write!(f, ", attempt {}", message.attempt) } else { Ok(()) }
            }
            Frame::MsgA(answer) if answer.count > 1 => {
                let last = answer.request + answer.count - 1;
                write!(f, "#{}-{last} {}", answer.request, Said(&answer.answer))
            }
            Frame::MsgA(answer) => write!(f, "#{} {}", answer.request, Said(&answer.answer)),
            Frame::AckR(ack) => write!(f, "#{} {}", ack.request, Answers(&ack.answers)),
            Frame::AckA(ack) => write!(f, "#{}", ack.request),
            Frame::AckN(told) => {
                write!(f, "to {}: {}", told.recipient.short(), Ends(&told.delivered, &told.exceptions))
            }
            Frame::HelloR(hello) => {
                let role = match hello.role {
                    super::Role::Peer => "a peer",
                    super::Role::Relay => "a relay",
                };
                write!(f, "as {role}, credit {}", hello.credit_messages)
            }
            Frame::HelloA(hello) => write!(f, "{} waiting", hello.status.messages),
            Frame::WhereR(ask) => {
                write!(f, "#{}", ask.request)?;
                let mut lanes = ask.lanes.iter();
                lanes
                    .try_for_each(|lane| write!(f, " to {}: {}?", lane.lane.recipient.short(), Run(lane.from, lane.to)))
            }
            Frame::WhereA(told) => {
                write!(f, "#{}", told.request)?;
                let mut lanes = told.lanes.iter();
                lanes.try_for_each(|lane| {
                    write!(f, " holds up to {}: {}", lane.last, Ends(&lane.delivered, &lane.exceptions))
                })
            }
            Frame::CloseR(close) => write!(f, "#{} lanes: {}", close.request, close.lanes.len()),
            Frame::CloseA(close) => write!(f, "#{}", close.request),
            Frame::StatusR(ask) => write!(f, "#{}", ask.request),
            Frame::StatusA(told) => write!(f, "#{} {} waiting", told.request, told.status.messages),
            Frame::PageR(ask) => write!(f, "#{} at most {}; {}", ask.request, ask.max_messages, Answers(&ask.answers)),
            Frame::PageA(page) => {
                let rest = if page.complete { ", the last" } else { "" };
                write!(f, "#{} messages: {}{rest}", page.request, page.messages.len())
            }
            Frame::PolicyR(ask) if ask.change.is_empty() => write!(f, "#{}", ask.request),
            Frame::PolicyR(ask) => write!(f, "#{} peers: {}", ask.request, ask.change.peers()),
            Frame::PolicyA(told) => write!(f, "#{}{}", told.request, if told.full { " refused" } else { "" }),
            Frame::OpenN(open) => f.write_str(match open.kind {
                super::StreamKind::Submit => "submit",
                super::StreamKind::Notify => "notify",
                super::StreamKind::Sync => "sync",
            }),
            Frame::GoawayN(goaway) => write!(f, "for {} ms", goaway.delay_ms),
            Frame::AgainN(_) | Frame::NopN(_) => Ok(()),
        }
    }
}

/// A message, and whether it is signed.
struct Letter<'a>(&'a bytes::Bytes, bool);

impl fmt::Display for Letter<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ok(envelope) = Envelope::parse(self.0.clone()) else { return f.write_str("no envelope") };
        let header = envelope.header();
        let (from, to) = (header.sender.short(), header.recipient.short());
        let signed = if self.1 { ", signed" } else { "" };
        write!(f, "message {} from {from} to {to}, {} B{signed}", header.n, envelope.body_bytes())
    }
}

struct Said<'a>(&'a Answer);

impl fmt::Display for Said<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Answer::Accepted { durability, duplicate, verdict, .. } => {
                write!(f, "accepted on {}", durability.name())?;
                if *duplicate {
                    f.write_str(", duplicate")?;
                }
                verdict.as_ref().map_or(Ok(()), |verdict| write!(f, ", {}", Fate(verdict)))
            }
            Answer::Final(verdict) => write!(f, "{}", Fate(verdict)),
            Answer::Gap { last } => write!(f, "gap after {last}"),
            Answer::Wait { reason, retry_after_ms } => write!(f, "not now: {reason}, again in {retry_after_ms} ms"),
        }
    }
}

struct Fate<'a>(&'a Verdict);

impl fmt::Display for Fate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.outcome {
            Outcome::Delivered => f.write_str("delivered")?,
            Outcome::Expired { .. } => f.write_str("expired")?,
            Outcome::Rejected { reason, .. } => write!(f, "rejected, {reason}")?,
        }
        self.0.relay.map_or(Ok(()), |relay| write!(f, " at {}", relay.short()))
    }
}

struct Run(u64, u64);

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == self.1 { write!(f, "{}", self.0) } else { write!(f, "{}-{}", self.0, self.1) }
    }
}

/// Numbers of a lane that are over.
struct Ends<'a>(&'a Ranges, &'a [Exception]);

impl fmt::Display for Ends<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let delivered = self.0.iter().map(|(from, to)| format!("{} delivered", Run(from, to)));
        let others = self.1.iter().map(|run| format!("{} {}", Run(run.from, run.to), Fate(&run.verdict)));
        let all: Vec<String> = delivered.chain(others).collect();
        f.write_str(if all.is_empty() { "nothing is over" } else { "" })?;
        f.write_str(&all.join("; "))
    }
}

struct Answers<'a>(&'a Taken);

impl fmt::Display for Answers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taken = self.0.taken.iter().map(|(from, to)| format!("seq {} taken", Run(from, to)));
        let refused = self.0.refused.iter().map(|refusal| format!("seq {} refused", refusal.seq));
        let all: Vec<String> = taken.chain(refused).collect();
        f.write_str(if all.is_empty() { "nothing taken" } else { "" })?;
        f.write_str(&all.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::LaneId;
    use crate::protocol::{AckN, AckR, MsgA, MsgN, RejectReason, WaitReason, sample};

    #[test]
    fn a_frame_is_a_line_without_what_people_wrote_to_each_other() {
        let envelope = sample(7, b"a secret");
        let [from, to] = [envelope.header().sender, envelope.header().recipient].map(|peer| peer.short());
        let refused =
            Outcome::Rejected { reason: RejectReason::Refused, text: Some("a secret".into()), maybe_taken: false };
        let run = Exception { from: 2, to: 3, verdict: Verdict::here(refused) };
        let told = AckN {
            sender: None,
            recipient: envelope.header().recipient,
            lane: LaneId(1),
            delivered: Ranges::one(1),
            exceptions: vec![run],
        };
        let answers = Taken { taken: [4, 5].into_iter().collect(), refused: Vec::new() };
        let wait = Answer::Wait { reason: WaitReason::Quota, retry_after_ms: 50 };
        let pushed =
            MsgN { seq: 9, ttl_ms: 1, attempt: 2, envelope: envelope.bytes().clone(), signature: Some([0; 64]) };
        let cases: [(Frame, String); 4] = [
            (pushed.into(), format!("seq 9 message 7 from {from} to {to}, 8 B, signed, attempt 2")),
            (AckR { request: 1, store: crate::id::StoreId([0; 16]), answers }.into(), "#1 seq 4-5 taken".into()),
            (MsgA { request: 3, count: 4, answer: wait }.into(), "#3-6 not now: quota, again in 50 ms".into()),
            (told.into(), format!("to {to}: 1 delivered; 2-3 rejected, refused")),
        ];
        for (frame, expected) in cases {
            assert_eq!(frame.summary().to_string(), expected);
        }
    }
}
