//! From and to `wasi:http` 0.2.

use super::{Body, BodyError, Request, Response, ResponseBody};
use crate::wit::endpoint::wasi::{
    http::types::{
        Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingResponse, ResponseOutparam,
    },
    io::streams::{InputStream, OutputStream, StreamError},
};

const READ_BYTES: u64 = 64 * 1024;

/// Serves one call of `incoming-handler.handle`.
pub fn handle(
    request: IncomingRequest,
    response_out: ResponseOutparam,
    serve: impl FnOnce(Request) -> Response,
) {
    let response = serve(incoming(request));
    send(response, response_out);
}

#[expect(clippy::needless_pass_by_value, reason = "the host's resource is dropped when it is taken apart")]
fn incoming(request: IncomingRequest) -> Request {
    let target = request.path_with_query().unwrap_or_else(|| "/".to_owned());
    let mut incoming = Request::new(&method_name(request.method()), &target);
    incoming.headers = request
        .headers()
        .entries()
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_ascii_lowercase(), String::from_utf8(value).ok()?)))
        .collect();
    incoming.body = match request.consume() {
        Ok(body) => body_of(body),
        Err(()) => Body::empty(),
    };
    incoming
}

fn method_name(method: Method) -> String {
    match method {
        Method::Get => "GET".to_owned(),
        Method::Head => "HEAD".to_owned(),
        Method::Post => "POST".to_owned(),
        Method::Put => "PUT".to_owned(),
        Method::Delete => "DELETE".to_owned(),
        Method::Connect => "CONNECT".to_owned(),
        Method::Options => "OPTIONS".to_owned(),
        Method::Trace => "TRACE".to_owned(),
        Method::Patch => "PATCH".to_owned(),
        Method::Other(name) => name,
    }
}

/// Fields drop in order: the stream is a child of the body and goes first.
struct Pieces {
    stream: InputStream,
    _body: IncomingBody,
    ended: bool,
}

fn body_of(body: IncomingBody) -> Body {
    match body.stream() {
        Ok(stream) => Body(Box::new(Pieces { stream, _body: body, ended: false })),
        Err(()) => Body::empty(),
    }
}

impl Iterator for Pieces {
    type Item = Result<Vec<u8>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            match self.stream.blocking_read(READ_BYTES) {
                Ok(piece) if piece.is_empty() => {}
                Ok(piece) => return Some(Ok(piece)),
                Err(StreamError::Closed) => self.ended = true,
                Err(StreamError::LastOperationFailed(_)) => {
                    self.ended = true;
                    return Some(Err(BodyError::Broken));
                }
            }
        }
        None
    }
}

fn send(response: Response, response_out: ResponseOutparam) {
    let mut headers = response.headers;
    if let ResponseBody::Whole(bytes) = &response.body {
        headers.push(("content-length".to_owned(), bytes.len().to_string()));
    }
    let headers: Vec<_> = headers.into_iter().map(|(name, value)| (name, value.into_bytes())).collect();
    let fields = Fields::from_list(&headers).expect("an endpoint made a header that is not valid HTTP");
    let outgoing = OutgoingResponse::new(fields);
    outgoing.set_status_code(response.status).expect("an endpoint made a status that is not valid HTTP");
    let body = outgoing.body().expect("the body is taken once");
    ResponseOutparam::set(response_out, Ok(outgoing));
    if write_body(&body, response.body).is_ok() {
        // An error here means that the client is gone.
        let _ = OutgoingBody::finish(body, None);
    }
    // Dropped unfinished, the host ends the response as broken.
}

fn write_body(body: &OutgoingBody, content: ResponseBody) -> Result<(), BodyError> {
    let stream = body.write().map_err(|()| BodyError::Broken)?;
    match content {
        ResponseBody::Whole(bytes) => write_all(&stream, &bytes).map_err(|_| BodyError::Broken),
        ResponseBody::Stream(pieces) => {
            for piece in pieces {
                write_all(&stream, &piece?).map_err(|_| BodyError::Broken)?;
            }
            Ok(())
        }
    }
}

/// Writes as the host makes room and flushes at the end.
fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        let room = usize::try_from(stream.check_write()?).unwrap_or(usize::MAX);
        if room == 0 {
            stream.subscribe().block();
            continue;
        }
        let (now, later) = bytes.split_at(room.min(bytes.len()));
        stream.write(now)?;
        bytes = later;
    }
    stream.blocking_flush()
}
