"""Opens a CONNECT stream with python3-h2, sends SIZE octets, ends its half, and
checks that they come back. Prints the response's baggage and "ok"."""
import hashlib
import socket
import sys

import h2.config
import h2.connection
import h2.events

host, port, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
sock = socket.create_connection((host, port), timeout=20)
conn = h2.connection.H2Connection(
    h2.config.H2Configuration(
        client_side=True,
        header_encoding="utf-8",
        # h2 4.1 knows extended CONNECT only and asks for :path and :scheme in every one.
        validate_inbound_headers=False,
        validate_outbound_headers=False,
    )
)
conn.initiate_connection()
stream = conn.get_next_available_stream_id()
conn.send_headers(stream, [(":method", "CONNECT"), (":authority", "10.0.0.7:8080"), ("baggage", "service.name=py")])
sock.sendall(conn.data_to_send())

payload = bytes(i * 31 % 251 for i in range(size))
sent, got, answered, ended = 0, hashlib.sha256(), False, False
while not ended:
    if answered:
        while sent < size:
            n = min(conn.local_flow_control_window(stream), conn.max_outbound_frame_size, size - sent)
            if n <= 0:
                break
            conn.send_data(stream, payload[sent : sent + n])
            sent += n
            if sent == size:
                conn.end_stream(stream)
    sock.sendall(conn.data_to_send())
    data = sock.recv(65536)
    if not data:
        sys.exit("connection ended early")
    for event in conn.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            headers = dict(event.headers)
            assert headers[":status"] == "200", headers
            print(headers.get("baggage", ""))
            answered = True
        elif isinstance(event, h2.events.DataReceived):
            got.update(event.data)
            conn.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            ended = True
        elif isinstance(event, (h2.events.StreamReset, h2.events.ConnectionTerminated)):
            sys.exit("unexpected " + repr(event))
conn.close_connection()
sock.sendall(conn.data_to_send())
if got.digest() != hashlib.sha256(payload).digest():
    sys.exit("what came back differs")
print("ok")
