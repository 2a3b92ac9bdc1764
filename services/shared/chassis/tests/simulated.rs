//! The same code on a simulated network, in plain text and virtual time.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use lockstep_chassis::{App, Channels, Connection, Dial, Drain, Health, Lane, status};
use lockstep_model::{
    Identity, Reason, Role, ServerId,
    identity::{Members, MembersUnavailable},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use turmoil::net::{TcpListener, TcpStream};

const PORT: u16 = 7_443;

/// A connection whose other end the simulation vouches for.
struct Simulated(TcpStream);

impl Connection for Simulated {
    fn identity(&self) -> Option<Identity> {
        Some(Identity::Service("gateway"))
    }
}

impl AsyncRead for Simulated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Simulated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[derive(Clone)]
struct SimulatedDial;

impl Dial for SimulatedDial {
    type Io = TcpStream;

    async fn dial(&self, uri: http::Uri, _: Option<Identity>) -> io::Result<TcpStream> {
        TcpStream::connect((uri.host().unwrap().to_owned(), uri.port_u16().unwrap())).await
    }
}

#[derive(Clone)]
struct Nobody;

impl Members for Nobody {
    async fn role(&self, _: &str) -> Result<Option<Role>, MembersUnavailable> {
        Ok(None)
    }

    async fn knows(&self, _: &ServerId) -> Result<bool, MembersUnavailable> {
        Ok(false)
    }
}

/// Asks through a partition and its end; returns what happened when, in virtual milliseconds.
fn partition() -> Vec<(u128, String)> {
    let mut sim = turmoil::Builder::new()
        .simulation_duration(Duration::from_secs(120))
        .enable_tokio_io()
        .rng_seed(7)
        .build();
    sim.host("server", || async {
        let (drain, health) = (Drain::new(), Health::new(&[]));
        let listener = TcpListener::bind(("0.0.0.0", PORT)).await?;
        let incoming = futures::stream::unfold(listener, async |listener| {
            let (stream, _) = listener.accept().await.ok()?;
            Some((Simulated(stream), listener))
        });
        App::new("filesync", Nobody, health).serve(incoming, &drain).await?;
        Ok(())
    });
    let events = Rc::new(RefCell::new(Vec::new()));
    let told = events.clone();
    sim.client("client", async move {
        let channels = Channels::new(SimulatedDial);
        let channel =
            channels.to(&format!("http://server:{PORT}"), Identity::Service("gateway"), Lane::Control);
        let begun = Instant::now();
        let ask = async || {
            let mut client = HealthClient::new(channel.clone());
            let event = match client.check(HealthCheckRequest::default()).await {
                Ok(answer) => answer.into_inner().status().as_str_name().to_owned(),
                Err(error) => status::read(&error).reason.to_string(),
            };
            told.borrow_mut().push((begun.elapsed().as_millis(), event));
        };
        ask().await;
        turmoil::partition("client", "server");
        ask().await;
        tokio::time::sleep(Duration::from_secs(30)).await;
        ask().await;
        turmoil::repair("client", "server");
        ask().await;
        Ok(())
    });
    sim.run().unwrap();
    events.take()
}

/// A peer that vanished is noticed within 10 s, the channel recovers by itself, and it is the same each time.
#[test]
fn a_channel_survives_a_partition() {
    let events = partition();
    let words: Vec<&str> = events.iter().map(|(_, event)| event.as_str()).collect();
    let unreachable = Reason::PeerUnreachable.as_str();
    let serving = ServingStatus::Serving.as_str_name();
    assert_eq!(words, [serving, unreachable, unreachable, serving], "{events:?}");
    let noticed = events[1].0 - events[0].0;
    assert!(noticed <= 10_000, "{noticed} ms");
    assert_eq!(partition(), events);
}
