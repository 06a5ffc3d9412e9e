//! `GET /metrics`: what goes on, for Prometheus. What is counted is counted elsewhere, without a look at who asks; here
//! it gets its names.

use std::fmt;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::health::Health;
use crate::measure::Lengths;
use crate::relay::Report;
use crate::store::StoreError;

/// The media type of the format (OpenMetrics, which Prometheus reads).
const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Counters of the relay and its store at one moment.
#[derive(Debug)]
struct Counts {
    packets: Vec<(&'static str, u64)>,
    paged: u64,
    refusals: Vec<(&'static str, u64)>,
    closed: Vec<(&'static str, u64)>,
    turned_away: Vec<(&'static str, u64)>,
    retries: u64,
    unread: u64,
    accepted: u64,
    outcomes: [(&'static str, u64); 3],
    commits: Lengths,
    tables: Lengths,
    delivered: Lengths,
}

/// All that is told.
#[derive(Debug)]
struct Snapshot {
    counts: Counts,
    report: Report,
}

pub(super) async fn metrics(
    State(health): State<Arc<Health>>,
) -> Result<([(HeaderName, &'static str); 1], String), (StatusCode, String)> {
    let unavailable = |error: StoreError| (StatusCode::SERVICE_UNAVAILABLE, format!("{error}\n"));
    let report = health.observer.report().await.map_err(unavailable)?;
    let counts = health.observer.counted(|meter, counted| Counts {
        packets: meter.packets().to_vec(),
        paged: meter.paged.count(),
        refusals: meter.refusals.counts().collect(),
        closed: meter.closed.counts().collect(),
        turned_away: meter.turned_away.counts().collect(),
        retries: meter.retries.count(),
        unread: meter.unread.count(),
        accepted: counted.accepted.count(),
        outcomes: [
            ("delivered", counted.delivered.lengths().count()),
            ("expired", counted.expired.count()),
            ("rejected", counted.rejected.count()),
        ],
        commits: counted.commits.lengths(),
        tables: counted.tables.lengths(),
        delivered: counted.delivered.lengths(),
    });
    let counts = counts.ok_or_else(|| unavailable(StoreError::Closed))?;
    let mut registry = Registry::with_prefix("posthouse");
    registry.register_collector(Box::new(Snapshot { counts, report }));
    let mut text = String::new();
    let encoded = encode(&mut text, &registry);
    encoded.map_err(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")))?;
    Ok(([(header::CONTENT_TYPE, CONTENT_TYPE)], text))
}

impl Collector for Snapshot {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Self { counts, report } = self;
        let mut told = Told(encoder);
        told.counters(
            "packets",
            "Frames of the six packets of a message; a frame of MSG:A, ACK:R, ACK:A and ACK:N may be about many messages",
            "packet",
            &counts.packets,
        )?;
        told.counter("paged_messages", "Messages handed out on pages, beside those pushed as MSG:N", counts.paged)?;
        told.counter("accepted_messages", "Messages accepted and on the disk", counts.accepted)?;
        told.counters(
            "outcomes",
            "Messages that left a mailbox or an outbox, by outcome",
            "outcome",
            &counts.outcomes,
        )?;
        told.counters("refusals", "Messages that were not accepted, by reason", "reason", &counts.refusals)?;
        told.counters("closed_sessions", "Connections that the relay closed, by close code", "code", &counts.closed)?;
        told.counters(
            "refused_connections",
            "Connections refused by limits, or while draining, by reason",
            "reason",
            &counts.turned_away,
        )?;
        told.counter("retries", "Connection attempts that were told to prove their address first", counts.retries)?;
        told.counter("unread_packets", "First packets of handshakes left unread: a flood", counts.unread)?;
        told.histogram(
            "commit_duration",
            "From the beginning of a transaction of the store until it is on the disk",
            &counts.commits,
        )?;
        told.histogram(
            "tables_duration",
            "How long it took to bring into the tables what many commits had made durable; requests wait meanwhile",
            &counts.tables,
        )?;
        told.histogram(
            "delivery_duration",
            "From the acceptance of a message until its recipient took it; of those who were away as well",
            &counts.delivered,
        )?;
        let stored = &report.stored;
        told.gauge("sessions", "Sessions that are open", None, report.sessions as u64)?;
        let links: Vec<_> = report.links.iter().map(|(state, count)| (*state, *count)).collect();
        told.gauges("links", "Links to other relays, by how they stand", "state", &links)?;
        told.gauge("mailboxes", "Mailboxes of peers", None, stored.mailboxes)?;
        told.gauge("provisional_mailboxes", "Mailboxes of peers that never connected", None, stored.provisional)?;
        told.gauge("mailbox_messages", "Messages that wait in all mailboxes", None, stored.messages)?;
        told.gauge("outboxes", "Relays that something is kept for", None, stored.outboxes)?;
        told.gauge("outbox_messages", "Messages that wait for other relays", None, stored.forwarding)?;
        told.gauge("outbox", "Messages that wait for other relays", Some(&Unit::Bytes), stored.forwarding_bytes)?;
        told.gauge("lanes", "Lanes that are remembered", None, stored.lanes)?;
        told.gauge("store", "Length of the store file, used or not", Some(&Unit::Bytes), stored.file_bytes)?;
        told.gauge("draining", "Whether the relay is about to stop", None, report.draining.into())?;
        told.gauge("uptime", "How long the relay has run", Some(&Unit::Seconds), report.uptime.as_secs())?;
        told.gauges("build", "Which program it is; always 1", "version", &[(env!("CARGO_PKG_VERSION"), 1)])
    }
}

/// Where metrics are told.
struct Told<'a>(DescriptorEncoder<'a>);

impl Told<'_> {
    fn counter(&mut self, name: &str, help: &str, count: u64) -> fmt::Result {
        self.single(name, help, None, &ConstCounter::new(count))
    }

    fn counters(&mut self, name: &str, help: &str, label: &str, counts: &[(&str, u64)]) -> fmt::Result {
        self.family(name, help, MetricType::Counter, label, counts, ConstCounter::new)
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, value: u64) -> fmt::Result {
        self.single(name, help, unit, &ConstGauge::new(value))
    }

    fn gauges(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
        self.family(name, help, MetricType::Gauge, label, values, ConstGauge::new)
    }

    fn single(&mut self, name: &str, help: &str, unit: Option<&Unit>, metric: &impl EncodeMetric) -> fmt::Result {
        metric.encode(self.0.encode_descriptor(name, help, unit, metric.metric_type())?)
    }

    /// A metric for each value of a label.
    fn family<M: EncodeMetric>(
        &mut self,
        name: &str,
        help: &str,
        kind: MetricType,
        label: &str,
        numbers: &[(&str, u64)],
        metric: impl Fn(u64) -> M,
    ) -> fmt::Result {
        let mut descriptor = self.0.encode_descriptor(name, help, None, kind)?;
        for (value, number) in numbers {
            metric(*number).encode(descriptor.encode_family(&[(label, *value)])?)?;
        }
        Ok(())
    }

    fn histogram(&mut self, name: &str, help: &str, lengths: &Lengths) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
        let buckets: Vec<_> = lengths.buckets().collect();
        metric.encode_histogram::<NoLabelSet>(lengths.sum_seconds(), lengths.count(), &buckets, None)
    }
}
