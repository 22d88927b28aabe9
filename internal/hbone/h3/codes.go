package h3

import "github.com/tulle-mesh/tulle/internal/hbone"

// code is an HTTP/3 error code (RFC 9114 section 8.1, RFC 9204 section 6).
type code uint64

const (
	codeNoError              code = 0x100
	codeGeneralProtocol      code = 0x101
	codeInternal             code = 0x102
	codeStreamCreation       code = 0x103
	codeClosedCriticalStream code = 0x104
	codeFrameUnexpected      code = 0x105
	codeFrameError           code = 0x106
	codeExcessiveLoad        code = 0x107
	codeID                   code = 0x108
	codeSettings             code = 0x109
	codeMissingSettings      code = 0x10a
	codeRequestRejected      code = 0x10b
	codeRequestCancelled     code = 0x10c
	codeRequestIncomplete    code = 0x10d
	codeMessage              code = 0x10e
	codeConnect              code = 0x10f
	codeQPACKDecompression   code = 0x200
	codeQPACKEncoderStream   code = 0x201
)

// toH3 maps an HTTP/2 code to the HTTP/3 code of the same meaning. Flow control
// and version negotiation belong to QUIC, so their codes have no counterpart.
func toH3(c hbone.ErrCode) code {
	switch c {
	case hbone.CodeNo:
		return codeNoError
	case hbone.CodeInternal:
		return codeInternal
	case hbone.CodeFrameSize:
		return codeFrameError
	case hbone.CodeRefusedStream:
		return codeRequestRejected
	case hbone.CodeCancel:
		return codeRequestCancelled
	case hbone.CodeCompression:
		return codeQPACKDecompression
	case hbone.CodeConnect:
		return codeConnect
	case hbone.CodeEnhanceCalm:
		return codeExcessiveLoad
	default:
		return codeGeneralProtocol
	}
}

// fromH3 maps an HTTP/3 code to the HTTP/2 code of the same meaning. Unknown
// codes count as H3_NO_ERROR (RFC 9114 section 8).
func fromH3(c code) hbone.ErrCode {
	switch c {
	case codeInternal:
		return hbone.CodeInternal
	case codeFrameError:
		return hbone.CodeFrameSize
	case codeRequestRejected:
		return hbone.CodeRefusedStream
	case codeRequestCancelled:
		return hbone.CodeCancel
	case codeQPACKDecompression, codeQPACKEncoderStream:
		return hbone.CodeCompression
	case codeConnect:
		return hbone.CodeConnect
	case codeExcessiveLoad:
		return hbone.CodeEnhanceCalm
	case codeGeneralProtocol, codeStreamCreation, codeClosedCriticalStream, codeFrameUnexpected,
		codeID, codeSettings, codeMissingSettings, codeRequestIncomplete, codeMessage:
		return hbone.CodeProtocol
	default:
		return hbone.CodeNo
	}
}
