package migrate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	kjson "sigs.k8s.io/json"
)

// duration is a duration such as 90s. It is parsed where it is used, because an error here would not name the field.
type duration string

// unmarshal decodes the value at a path of an object, and returns the paths of unknown fields. The error names the first
// value with a wrong type. It does not contain text of the object, which may be a password.
func unmarshal(path string, value, into any) (unknown []string, err error) {
	text, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w: correct it", path, err)
	}
	strict, err := kjson.UnmarshalStrict(text, into)
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		at, _ := locate(json.NewDecoder(bytes.NewReader(text)), path, wrong.Offset)
		return nil, fmt.Errorf("%s: it is %s: write %s", at, found(wrong), wanted(wrong))
	}
	if err != nil {
		return nil, fmt.Errorf("%s cannot be read: %w: correct it", path, err)
	}
	for _, s := range strict {
		if f, ok := s.(kjson.FieldError); ok { //nolint:errorlint // The errors in this list are not wrapped.
			unknown = append(unknown, path+"."+f.FieldPath())
		}
	}
	return unknown, nil
}

// locate returns the path of the value that the decoder reaches after offset bytes, or the given path if there is none. The
// decoder's own error has names of fields, too, but no indices, and also names of Go types.
func locate(d *json.Decoder, path string, offset int64) (at string, found bool) {
	token, err := d.Token()
	if err != nil || d.InputOffset() == offset {
		return path, err == nil
	}
	bracket, nested := token.(json.Delim)
	for n := 0; nested && d.More(); n++ {
		inner := fmt.Sprintf("%s[%d]", path, n)
		if bracket == '{' {
			key, _ := d.Token()
			inner = fmt.Sprintf("%s.%v", path, key)
		}
		if at, found := locate(d, inner, offset); found {
			return at, true
		}
	}
	if nested {
		_, _ = d.Token() // the closing bracket
	}
	return path, false
}

// found describes the wrong value. The decoder's error includes numbers that do not fit, and no other values.
func found(wrong *json.UnmarshalTypeError) string {
	kind, number, _ := strings.Cut(wrong.Value, " ")
	switch {
	case number != "":
		return "the number " + number
	case kind == "bool":
		return "a boolean"
	case kind == "array":
		return "a list"
	case kind == "object":
		return "a map"
	}
	return "a " + kind
}

// wanted says what to write instead of a value.
func wanted(wrong *json.UnmarshalTypeError) string {
	scalar := wrong.Value != "array" && wrong.Value != "object"
	marks := ""
	if wrong.Value == "string" {
		marks = ", without quotation marks"
	}
	switch t := wrong.Type; t.Kind() {
	case reflect.Struct, reflect.Map:
		return "a map"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.String {
			return "a list of strings"
		}
		return "a list of maps"
	case reflect.String:
		if t == reflect.TypeFor[duration]() {
			return "a duration such as 90s"
		}
		if scalar {
			return "a string, in quotation marks"
		}
		return "a string"
	case reflect.Bool:
		return "true or false" + marks
	case reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf("a whole number from 0 to %d", uint64(1)<<t.Bits()-1) + marks
	default:
		return "a whole number" + marks
	}
}
