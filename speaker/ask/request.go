package ask

// What a machine needs to have another one ask for it: POST /verify by HTTPS, with a bearer token.
const (
	// Port is where a speaker listens unless it is told otherwise.
	Port = 7475
	// Audience is that of tokens for this port alone.
	Audience = "herald-speaker"
	// MaxQuestions is how many addresses one request may have.
	MaxQuestions = 1000
)

// Request is the body of the request, in JSON.
type Request struct {
	Addresses []Question `json:"addresses"`
}

// Response is the body of the response.
type Response struct {
	Answers []Answer `json:"answers"`
	// Error says what failed. What did not fail is among the answers.
	Error string `json:"error,omitempty"`
}
