//! mosquitto: the message on one topic, the recipient's receipt on another, all in memory and without TLS.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use futures_util::{FutureExt, SinkExt, StreamExt};
use hdrhistogram::Histogram;
use rumqttc::mqttbytes::QoS;
use rumqttc::mqttbytes::v4::{Codec, Connect, Packet, PubAck, PubComp, PubRec, PubRel, Publish, Subscribe};
use tokio::net::TcpStream;
use tokio::sync::Barrier;
use tokio_util::codec::Framed;

use crate::server::Server;
use crate::work::{Figures, Load, Run, Start, histogram};

/// Larger than any packet here.
const MAX_PACKET_BYTES: usize = 1 << 20;

pub async fn run(program: &str, qos: QoS, load: Load, seconds: std::time::Duration) -> anyhow::Result<Figures> {
    let server = Server::start(program, "-c", |port, _| {
        // No limit on what is on its way, no Nagle delay, nothing written to disk or to a log.
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_inflight_messages 0\n\
             max_queued_messages 0\npersistence false\nlog_type none\n"
        )
    })?;
    let mut run = Run::new(load);
    for pair in 0..load.pairs {
        let (to, back) = (format!("to/{pair}"), format!("back/{pair}"));
        let recipient = Client::connect(server.address, &format!("r{pair}"), &to, qos).await?;
        let sender = Client::connect(server.address, &format!("s{pair}"), &back, qos).await?;
        run.add(|ready| recipient.answer(back, ready), |window, start| sender.send(to, window, start));
    }
    run.measure(server.id(), seconds).await
}

struct Client {
    stream: Framed<TcpStream, Codec>,
    qos: QoS,
    last_id: u16,
}

impl Client {
    async fn connect(server: SocketAddr, name: &str, topic: &str, qos: QoS) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let codec = Codec { max_incoming_size: MAX_PACKET_BYTES, max_outgoing_size: MAX_PACKET_BYTES };
        let mut client = Self { stream: Framed::new(stream, codec), qos, last_id: 0 };
        client.stream.send(Packet::Connect(Connect::new(name))).await?;
        let Packet::ConnAck(_) = client.next().await? else { bail!("no CONNACK") };
        client.stream.send(Packet::Subscribe(Subscribe { pkid: 1, ..Subscribe::new(topic, qos) })).await?;
        let Packet::SubAck(_) = client.next().await? else { bail!("no SUBACK") };
        Ok(client)
    }

    async fn next(&mut self) -> anyhow::Result<Packet> {
        Ok(self.stream.next().await.context("mosquitto closed the connection")??)
    }

    async fn publish(&mut self, topic: &str, payload: Vec<u8>) -> anyhow::Result<()> {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        let packet = Publish { pkid: self.last_id, ..Publish::new(topic, self.qos, payload) };
        Ok(self.stream.feed(Packet::Publish(packet)).await?)
    }

    /// Does what the protocol wants done about a packet. A message that is new.
    async fn take(&mut self, packet: Packet) -> anyhow::Result<Option<Publish>> {
        match packet {
            Packet::Publish(publish) => {
                let answer = match publish.qos {
                    QoS::ExactlyOnce => Packet::PubRec(PubRec::new(publish.pkid)),
                    _ => Packet::PubAck(PubAck::new(publish.pkid)),
                };
                self.stream.feed(answer).await?;
                return Ok(Some(publish));
            }
            Packet::PubRec(received) => self.stream.feed(Packet::PubRel(PubRel::new(received.pkid))).await?,
            Packet::PubRel(released) => self.stream.feed(Packet::PubComp(PubComp::new(released.pkid))).await?,
            Packet::PubAck(_) | Packet::PubComp(_) => {}
            other => bail!("mosquitto sent {other:?}"),
        }
        Ok(None)
    }

    /// Sends a receipt for each message, until it is dropped.
    async fn answer(mut self, back: String, ready: Arc<Barrier>) -> anyhow::Result<()> {
        ready.wait().await;
        loop {
            let mut packet = Some(self.next().await?);
            while let Some(taken) = packet.take() {
                if let Some(message) = self.take(taken).await? {
                    self.publish(&back, message.payload[..8].to_vec()).await?;
                }
                packet = self.next().now_or_never().transpose()?;
            }
            SinkExt::<Packet>::flush(&mut self.stream).await?;
        }
    }

    /// Keeps a window of messages on their way until the time is over.
    async fn send(mut self, to: String, window: u32, start: Start) -> anyhow::Result<Histogram<u64>> {
        let span = start.wait().await?;
        let mut latency = histogram()?;
        let mut on_their_way = 0;
        loop {
            while on_their_way < window && !span.is_over() {
                self.publish(&to, span.body()).await?;
                on_their_way += 1;
            }
            if on_their_way == 0 {
                return Ok(latency);
            }
            SinkExt::<Packet>::flush(&mut self.stream).await?;
            let mut packet = Some(self.next().await?);
            while let Some(taken) = packet.take() {
                if let Some(receipt) = self.take(taken).await? {
                    span.enter(&receipt.payload, &mut latency)?;
                    on_their_way -= 1;
                }
                packet = self.next().now_or_never().transpose()?;
            }
        }
    }
}
