//! Calls below the generated clients: any method with any bytes, and connections that should get nowhere.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Uri, uri::PathAndQuery};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use lockstep_chassis::{Channel, channel::Dial};
use lockstep_model::Identity;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject as _},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Status,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// Messages as the bytes that they are.
#[derive(Clone, Copy, Debug, Default)]
struct Raw;

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, source: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = source.remaining();
        Ok(Some(source.copy_to_bytes(length)))
    }
}

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

/// Calls `package.Service/Method` with any number of messages: the first message of the answer, or the status. A stream
/// that ended well without a message is an empty one.
pub(crate) async fn call(
    channel: &Channel,
    method: &str,
    metadata: &[(&'static str, &str)],
    messages: Vec<Bytes>,
) -> Result<Bytes, Status> {
    let mut request = Request::new(futures::stream::iter(messages));
    request.set_timeout(crate::mesh::SOON);
    for (key, value) in metadata {
        request.metadata_mut().append(*key, value.parse().expect("metadata"));
    }
    let path = PathAndQuery::try_from(format!("/{method}")).expect("a path");
    let mut client = Grpc::new(channel.clone());
    client.ready().await?;
    let mut answers = client.streaming(request, path, Raw).await?.into_inner();
    Ok(answers.message().await?.unwrap_or_default())
}

/// An HTTP/2 connection over anything, with nothing on top that knows of deadlines or limits.
pub(crate) struct Wire {
    sender: hyper::client::conn::http2::SendRequest<Full<Bytes>>,
    ended: CancellationToken,
    _driver: tokio::task::JoinSet<()>,
}

/// How long an answer that was read before the connection ended may take to come up.
const AFTERWARDS: Duration = Duration::from_millis(100);

/// Says when nothing more can be read or written: the layers above it do not always notice.
struct Ending<T> {
    inner: T,
    ended: CancellationToken,
}

impl<T> Ending<T> {
    fn note<R>(&self, polled: Poll<io::Result<R>>) -> Poll<io::Result<R>> {
        if matches!(polled, Poll::Ready(Err(_))) {
            self.ended.cancel();
        }
        polled
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Ending<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(cx, buffer);
        if polled.is_ready() && buffer.filled().len() == before && buffer.remaining() > 0 {
            self.ended.cancel();
        }
        self.note(polled)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Ending<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.note(polled)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.inner).poll_flush(cx);
        self.note(polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

impl Wire {
    /// Connects to a port of this machine.
    pub(crate) async fn connect(dial: impl Dial, port: u16) -> io::Result<Self> {
        let uri: Uri = format!("https://127.0.0.1:{port}").parse().expect("a URI");
        let ended = CancellationToken::new();
        let io = TokioIo::new(Ending { inner: dial.dial(uri, None).await?, ended: ended.clone() });
        let connected = hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await;
        let (sender, connection) = connected.map_err(io::Error::other)?;
        let mut driver = tokio::task::JoinSet::new();
        driver.spawn(async move { drop(connection.await) });
        Ok(Self { sender, ended, _driver: driver })
    }

    /// Posts `body`, which is not framed here, and reads the whole answer: its body, or its status.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> io::Result<Answer> {
        let mut request = http::Request::post(format!("https://127.0.0.1{path}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (key, value) in headers {
            request = request.header(*key, *value);
        }
        let request = request.body(Full::new(body)).expect("a request");
        let sent = self.sender.send_request(request);
        let whole = async {
            let (head, body) = sent.await.map_err(io::Error::other)?.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?;
            let trailers = body.trailers().cloned().unwrap_or_default();
            Ok(Answer { head: head.headers, trailers, body: body.to_bytes() })
        };
        let ended = async {
            self.ended.cancelled().await;
            tokio::time::sleep(AFTERWARDS).await;
        };
        tokio::select! {
            biased;
            answer = whole => answer,
            () = ended => Err(io::Error::new(io::ErrorKind::ConnectionAborted, "the connection ended")),
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    head: HeaderMap,
    trailers: HeaderMap,
    body: Bytes,
}

impl Answer {
    /// The body of an answer that is OK, or its status.
    pub(crate) fn result(self) -> Result<Bytes, Status> {
        let told = Status::from_header_map(&self.head).or_else(|| Status::from_header_map(&self.trailers));
        let told = told.unwrap_or_else(|| panic!("no status in {self:?}"));
        if told.code() == tonic::Code::Ok { Ok(self.body) } else { Err(told) }
    }
}

/// A message in its gRPC frame.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut framed = BytesMut::with_capacity(message.len() + 5);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(message.len()).expect("short"));
    framed.put_slice(message);
    framed.freeze()
}

/// How a stranger connects: it believes every server, and shows what it is told to show.
#[derive(Clone, Debug)]
pub(crate) enum Stranger {
    /// Without TLS.
    Plain,
    /// With this configuration.
    Tls(Arc<ClientConfig>),
}

impl Stranger {
    /// With this certificate and key in PEM, or without any.
    pub(crate) fn showing(certificate: Option<(&str, &str)>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("the provider has the usual versions")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(BelievesAll(provider)));
        let mut config = match certificate {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let cert = CertificateDer::from_pem_slice(cert.as_bytes()).expect("a certificate");
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(vec![cert], key).expect("they belong together")
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Self::Tls(Arc::new(config))
    }
}

impl Dial for Stranger {
    type Io = Box<dyn Duplex>;

    async fn dial(&self, uri: Uri, _: Option<Identity>) -> io::Result<Self::Io> {
        let stream = TcpStream::connect(("127.0.0.1", uri.port_u16().expect("a port"))).await?;
        match self {
            Self::Plain => Ok(Box::new(stream)),
            Self::Tls(config) => {
                let name = ServerName::try_from("localhost").expect("a name");
                Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, stream).await?))
            }
        }
    }
}

/// Bytes both ways.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Duplex for T {}

/// Believes every server: that the server does not believe the client is what is tested.
#[derive(Debug)]
struct BelievesAll(Arc<rustls::crypto::CryptoProvider>);

impl ServerCertVerifier for BelievesAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signature,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
